"""flash-attn's ``flash_attn_with_kvcache`` in plain torch, as its documentation describes it.

Only the arguments this package passes, every documented rule of theirs: keys (cache rows, S, K, D);
query heads of a group share a key head; batch row b reads cache row ``cache_batch_idx[b]`` up to
``cache_seqlens[b]``; causal is aligned to the bottom right corner. What the real kernel refuses is
refused, except dtype and device.
"""

import torch
from torch import Tensor


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor,
    cache_batch_idx: Tensor,
    causal: bool = False,
) -> Tensor:
    """(B, T, H, D) queries to outputs of the same shape."""
    batch, rows, heads, dim = q.shape
    kv_heads = k_cache.shape[2]
    assert k_cache.shape == v_cache.shape and k_cache.shape[3] == dim
    assert heads % kv_heads == 0
    assert q.stride(-1) == k_cache.stride(-1) == v_cache.stride(-1) == 1
    for index in (cache_seqlens, cache_batch_idx):
        assert index.shape == (batch,) and index.dtype == torch.int32 and index.is_contiguous()
    out = torch.empty(q.shape, dtype=q.dtype)
    for b in range(batch):
        source, seen = int(cache_batch_idx[b]), int(cache_seqlens[b])
        assert 0 < seen <= k_cache.shape[1] and 0 <= source < k_cache.shape[0]
        for head in range(heads):
            keys = k_cache[source, :seen, head // (heads // kv_heads)].double()
            values = v_cache[source, :seen, head // (heads // kv_heads)].double()
            scores = q[b, :, head].double() @ keys.T / dim**0.5
            if causal:
                hidden = torch.ones(rows, seen, dtype=torch.bool).triu(seen - rows + 1)
                scores = scores.masked_fill(hidden, -torch.inf)
            out[b, :, head] = (scores.softmax(-1) @ values).to(q.dtype)
    return out


@torch.library.custom_op("tests::flash", mutates_args=())
def _operator(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, source: Tensor, causal: bool
) -> Tensor:
    return flash_attn_with_kvcache(
        q, k, v, cache_seqlens=lengths, cache_batch_idx=source, causal=causal
    )


def as_one_operation(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor,
    cache_batch_idx: Tensor,
    causal: bool = False,
) -> Tensor:
    """The same as the kernel is to a graph: one operation, whose lengths only the device knows."""
    return _operator(q, k_cache, v_cache, cache_seqlens, cache_batch_idx, causal)
