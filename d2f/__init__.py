"""D2F: pipelined parallel decoding of diffusion language models, beside its baselines."""

from d2f.checkpoint import Model, load_model
from d2f.config import ARConfig, D2FConfig, DecodeConfig, VanillaConfig
from d2f.decode import DECODERS, generate, stream
from d2f.events import BlockView, Commit, StepEvent, Trace, TraceHeader

__all__ = [
    "DECODERS",
    "ARConfig",
    "BlockView",
    "Commit",
    "D2FConfig",
    "DecodeConfig",
    "Model",
    "StepEvent",
    "Trace",
    "TraceHeader",
    "VanillaConfig",
    "generate",
    "load_model",
    "stream",
]
