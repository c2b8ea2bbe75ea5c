"""What a CUDA graph does, on the CPU: a step's operations recorded once, and repeated as they were.

Operators are repeated on the very tensors they were recorded with, without Python between them.
So whatever a step read on the host while it was recorded, a position or a length, stays as it was:
a step that depends on such a thing goes wrong here as it would on a GPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def storages(tree: Any) -> set[int]:
    return {x.untyped_storage().data_ptr() for x in tree_leaves(tree) if isinstance(x, Tensor)}


class Tape(TorchDispatchMode):
    """Captures steps as :class:`d2f.nn.compiled.Graphs` does; ``recorded`` counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = 0
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        step()
        self.recorded += 1
        self._calls = calls = []
        with self:
            step()
        return lambda: repeat(calls)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, out))
        return out


@torch.inference_mode()
def repeat(calls: list[tuple[Any, Any, Any, Any]]) -> None:
    for func, args, kwargs, out in calls:
        again = func(*args, **kwargs)
        # Views and what is written in place are there already.
        shared = storages((args, kwargs))
        for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
            if isinstance(old, Tensor) and not storages(old) & shared:
                old.copy_(new)
