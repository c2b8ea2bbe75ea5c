"""A model loaded and made fast: attention backend, quantisation, compiled programs.

What the command lines' ``--attention``, ``--quantize`` and ``--compile`` mean, in one place.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from d2f.catalogue.pairs import model_name
from d2f.checkpoints.load import DTYPES, find_shape, load_model
from d2f.memory import free_memory, require_memory
from d2f.model import Model
from d2f.nn.attention import choose_backend
from d2f.nn.quantize import check_quantization, quantize


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where and how a model runs; ``quantize`` is None or a key of d2f.nn.quantize's PACKAGES."""

    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "auto"
    quantize: str | None = None
    compile: bool = False


def chosen_engine(args: argparse.Namespace, dtype: str) -> Engine:
    """What the command line was given; ``dtype`` where it was given none."""
    return Engine(
        device=args.device,
        dtype=args.dtype or dtype,
        attention=args.attention,
        quantize=args.quantize,
        compile=args.compile,
    )


def load_engine(
    name_or_folder: str | Path, engine: Engine, adapter: str | Path | None = None
) -> Model:
    """:func:`d2f.load_model`, then all that makes it small and fast.

    A model to be quantised is loaded on the CPU, so that it never lies whole on a GPU; that the GPU
    is there, and has room for what will lie on it, is known before.

    Raises:
        ValueError: as load_model, or a quantisation that is not installed.
    """
    if engine.quantize is None:
        model = load_model(
            name_or_folder,
            adapter=adapter,
            device=engine.device,
            dtype=engine.dtype,
            attention=engine.attention,
        )
    else:
        check_quantization(engine.quantize)
        free = free_memory(engine.device)
        need = find_shape(name_or_folder).memory(engine.dtype, weights=engine.quantize)
        name = model_name(name_or_folder)
        require_memory(name, need, free, engine.device, engine.quantize)
        model = load_model(name_or_folder, adapter=adapter, dtype=engine.dtype, attention="sdpa")
        head_dim = model.config.head_dim
        model.net.attention = choose_backend(
            engine.attention, engine.device, DTYPES[engine.dtype], head_dim
        )
        quantize(model.net, engine.quantize, engine.device)
    return model.compiled() if engine.compile else model
