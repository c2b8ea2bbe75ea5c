"""Where and how a model runs; no choice here changes what decoding means. Knows no tensors."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of :func:`d2f.load_model` by their names."""

    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "auto"
    quantize: str | None = None
    compile: bool = False
