"""How the weights of products lie in memory, for inference on a CPU.

A product reads a weight faster in another order than the (out, in) rows it is stored in. In
"columns" it is transposed, which torch's own products read as it is: the network stays what it was,
and can be trained. "onednn" is oneDNN's own order, which its kernels would otherwise bring a
weight into at each product; that is what torch.compile does with frozen weights, by the same
operators. Which is faster, the machine, the dtype and the number of rows decide.

One weight is moved at a time, and replaces what it was made of: memory holds none twice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from d2f.errors import InvalidInput
from d2f.nn.transformer import Transformer

PACKINGS = ("rows", "columns", "onednn")
# The number of rows that oneDNN is told to expect.
ROWS = 32


class Packed(nn.Module):
    """A linear map whose weight lies in oneDNN's order. It cannot be trained."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.weight = _reordered(linear.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight.to_dense()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Packed":
        weight = fn(self.weight.to_dense())
        if weight.device.type != "cpu":
            raise InvalidInput("packed weights stay on the CPU: load the model on the device")
        self.weight = _reordered(weight)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _reordered(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    return packed


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes products of this dtype on this machine."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    supported: dict[torch.dtype, Callable[[], bool]] = {
        torch.float32: lambda: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return supported[dtype]()


def usual_packing(device: torch.device, dtype: torch.dtype) -> str:
    """What is fastest on most machines: by rows elsewhere than on a CPU."""
    if device.type != "cpu":
        return "rows"
    if dtype == torch.float32:
        return "columns"
    return "onednn" if can_pack(dtype) else "rows"


def check_packing(packing: str, device: torch.device, dtype: torch.dtype) -> None:
    """``InvalidInput`` for an order that is none, or that weights cannot have there."""
    if packing not in PACKINGS:
        raise InvalidInput(f"packing must be one of {PACKINGS}, got {packing!r}")
    if packing != "rows" and device.type != "cpu":
        raise InvalidInput(f"packing {packing!r} is for a CPU, got device {str(device)!r}")
    if packing == "onednn" and not can_pack(dtype):
        name = str(dtype).removeprefix("torch.")
        raise InvalidInput(f"packing 'onednn' needs a CPU whose oneDNN computes in {name}")


def pack(net: Transformer, packing: str) -> None:
    """Bring the weights of a loaded network's products, which lie in rows, into an order, in place.

    A head that is the embedding stays as it is: tokens are looked up by rows.

    Raises:
        InvalidInput: as :func:`check_packing`.
    """
    weight = net.embed_tokens.weight
    check_packing(packing, weight.device, weight.dtype)
    if packing == "rows":
        return
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child.weight is not weight:
                _place(parent, name, child, packing)
    net.packing = packing


def _place(parent: nn.Module, name: str, linear: nn.Linear, packing: str) -> None:
    if packing == "onednn":
        setattr(parent, name, Packed(linear))
    else:
        linear.weight.data = linear.weight.data.t().contiguous().t()
