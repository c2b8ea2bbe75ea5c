"""Where and how a model runs; no choice here changes what decoding means. Knows no tensors."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of :func:`d2f.load_model` by their names.

    ``dtype`` "auto" leaves the choice to :mod:`d2f.tuning`, as do ``packing`` and ``threads`` None.
    """

    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "auto"
    quantize: str | None = None
    compile: bool = False
    fuse: bool = False
    packing: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.fuse:
            object.__setattr__(self, "compile", True)

    @property
    def fused(self) -> bool:
        """Whether torch compiles the steps, for minutes: elsewhere than on CUDA it always does."""
        return self.compile and (self.fuse or not self.device.startswith("cuda"))
