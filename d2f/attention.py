"""Attention under one rule: row i sees keys ``0 .. visible_end[i] - 1``.

Causal, full and block-causal visibility are all of this form, so one integer a row says it all and
no max_length^2 mask is ever built. Knows nothing of decoding policy or of caches.
Backend here: torch's scaled_dot_product_attention, on every device.
"""

import torch
import torch.nn.functional as F
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
    prompt_length: int,
    block_size: int,
    total: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(end - start,) visible ends of rows ``start .. end - 1`` under D2F's visibility.

    Prompt rows see the prompt, both ways; a row of a block sees everything up to its block's end.
    The grid of blocks starts at the end of the prompt; ``total`` is the canvas length, where a
    shorter last block ends. Paper section 4.1.
    """
    position = torch.arange(start, end, device=device)
    block = torch.div(position - prompt_length, block_size, rounding_mode="floor").clamp(min=-1)
    return (prompt_length + (block + 1) * block_size).clamp(max=total)


def visible_mask(visible_end: Tensor, num_keys: int, groups: int) -> Tensor:
    """Boolean mask of :func:`attend` for rows with these visible ends.

    Args:
        visible_end: (T,) or (B, T) integers >= 1.
        num_keys: S, the number of keys.
        groups: query heads per key/value head.

    Returns:
        (B or 1, 1, groups * T, S), True where the row may look.
    """
    if visible_end.dim() == 1:
        visible_end = visible_end[None]
    keys = torch.arange(num_keys, device=visible_end.device)
    mask = keys < visible_end[..., None]  # (B, T, S)
    return mask.repeat(1, groups, 1)[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Grouped-query attention; ``mask=None`` lets every row see every key.

    The query heads that share a key/value head are folded into the row dimension, so keys and
    values are never repeated.

    Args:
        q: (B, T, H, D). k, v: (B, K, S, D) with H a multiple of K.
        mask: from :func:`visible_mask`.

    Returns:
        (B, T, H * D).
    """
    batch, rows, heads, dim = q.shape
    kv_heads = k.shape[1]
    groups = heads // kv_heads
    q = q.view(batch, rows, kv_heads, groups, dim).permute(0, 2, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        q.reshape(batch, kv_heads, groups * rows, dim), k, v, attn_mask=mask
    )
    out = out.view(batch, kv_heads, groups, rows, dim).permute(0, 3, 1, 2, 4)
    return out.reshape(batch, rows, heads * dim)
