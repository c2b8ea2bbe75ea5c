"""Weight-only quantisation of a loaded network, so that two large models fit on one card.

The products of the layers are quantised; embedding, norms and head keep their dtype. Activations
are never rounded. int8 is torchao's, a scale per output row; int4 is bitsandbytes' NF4 with a scale
per 64 weights. Both packages are optional. Answers change: no quantised run can be compared token
by token with another, and every report names the quantisation.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import cast

import torch
from torch import nn

from d2f.errors import LoadError
from d2f.nn.transformer import DecoderLayer, Transformer

PACKAGES = {"int8": "torchao", "int4": "bitsandbytes"}


def check_quantization(kind: str) -> None:
    """``ValueError`` for an unknown kind, or one whose package is not installed."""
    if kind not in PACKAGES:
        raise LoadError(f"quantize must be one of {sorted(PACKAGES)}, got {kind!r}")
    if find_spec(PACKAGES[kind]) is None:
        package = PACKAGES[kind]
        raise LoadError(f"quantize {kind!r} needs the {package} package: pip install {package}")


def quantize(net: Transformer, kind: str, device: torch.device | str) -> None:
    """Quantise in place and move to ``device``, one product at a time.

    Load the network on the CPU and quantise to a GPU: what is never whole on the GPU need not fit.
    """
    check_quantization(kind)
    replacement = {"int8": _int8, "int4": _int4}[kind]
    for layer in net.layers:
        _quantize_layer(cast(DecoderLayer, layer), replacement, torch.device(device))
    net.to(device)
    net.quantized = kind


def _quantize_layer(
    layer: DecoderLayer,
    replacement: Callable[[nn.Linear, torch.device], nn.Module],
    device: torch.device,
) -> None:
    for block in (layer.self_attn, layer.mlp):
        for name, module in list(block.named_children()):
            if isinstance(module, nn.Linear):
                setattr(block, name, replacement(module, device))


def _int8(linear: nn.Linear, device: torch.device) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    linear = linear.to(device)
    quantize_(linear, Int8WeightOnlyConfig())
    return linear


def _int4(linear: nn.Linear, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    dtype, biased = linear.weight.dtype, linear.bias is not None
    packed = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=biased,
        compute_dtype=dtype,
        quant_type="nf4",
        device="meta",
    )
    packed.weight = Params4bit(
        linear.weight.data, requires_grad=False, quant_type="nf4", module=packed
    )
    if biased:
        packed.bias = linear.bias
    # The move quantises.
    moved: nn.Module = packed.to(device).eval()
    return moved
