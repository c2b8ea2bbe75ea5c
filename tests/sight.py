"""Visible ends by closed formulas, beside those that policies read off their blocks."""

import torch
from torch import Tensor


def causal_ends(length: int, device: torch.device | str = "cpu") -> Tensor:
    """(T,) visible ends of causal attention."""
    return torch.arange(1, length + 1, device=device)


def full_ends(length: int, device: torch.device | str = "cpu") -> Tensor:
    """(T,) visible ends of bidirectional attention."""
    return torch.full((length,), length, device=device)


def block_causal_ends(
    start: int,
    end: int,
    origin: int,
    block_size: int,
    total: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(end - start,) visible ends of rows ``start .. end - 1`` under D2F's visibility.

    A row of a block sees everything up to its block's end. The grid of blocks starts at ``origin``,
    as D2F's does at the end of the prompt, and all before it is one block; ``total`` is the canvas
    length, where a shorter last block ends. Paper section 4.1.
    """
    position = torch.arange(start, end, device=device)
    block = torch.div(position - origin, block_size, rounding_mode="floor").clamp(min=-1)
    return (origin + (block + 1) * block_size).clamp(max=total)
