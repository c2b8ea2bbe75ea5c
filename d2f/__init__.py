"""D2F: pipelined parallel decoding of diffusion language models, beside its baselines.

Names load at first use, so that ``python -m d2f.x`` can set OpenMP's policy before torch loads (it
is read only then), and so that value modules stay free of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2f.checkpoints.load import load_model
    from d2f.config import (
        ARConfig,
        D2FConfig,
        DecodeConfig,
        FastDualConfig,
        FastPrefixConfig,
        VanillaConfig,
    )
    from d2f.decode import generate, stream
    from d2f.events import BlockView, Commit, Guess, StepEvent, Trace, TraceHeader
    from d2f.model import Model

__all__ = [
    "ARConfig",
    "BlockView",
    "Commit",
    "D2FConfig",
    "DecodeConfig",
    "FastDualConfig",
    "FastPrefixConfig",
    "Guess",
    "Model",
    "StepEvent",
    "Trace",
    "TraceHeader",
    "VanillaConfig",
    "generate",
    "load_model",
    "stream",
]

_HOMES = {
    "checkpoints.load": ("load_model",),
    "config": (
        *("ARConfig", "D2FConfig", "DecodeConfig"),
        *("FastDualConfig", "FastPrefixConfig", "VanillaConfig"),
    ),
    "decode": ("generate", "stream"),
    "events": ("BlockView", "Commit", "Guess", "StepEvent", "Trace", "TraceHeader"),
    "model": ("Model",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"d2f.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'd2f' has no attribute {name!r}")
