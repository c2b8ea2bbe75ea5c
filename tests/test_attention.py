"""Visibility against a brute-force reading of the rule; attention against a naive softmax."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2f.attention import attend, block_causal_ends, causal_ends, full_ends, visible_mask


def block_of(position: int, prompt: int, size: int) -> int:
    """0 for the prompt, then 1, 2, ... counted by walking the grid."""
    index, end = 0, prompt
    while position >= end:
        index, end = index + 1, end + size
    return index


@settings(max_examples=80)
@given(
    prompt=st.integers(1, 12),
    size=st.integers(1, 9),
    length=st.integers(1, 30),
    data=st.data(),
)
def test_block_causal_rows_see_their_block_and_all_before(
    prompt: int, size: int, length: int, data: st.DataObject
) -> None:
    total = prompt + length
    start = data.draw(st.integers(0, total - 1))
    end = data.draw(st.integers(start + 1, total))
    ends = block_causal_ends(start, end, prompt, size, total)
    mask = visible_mask(ends, total, groups=1)[0, 0]
    for row in range(start, end):
        for key in range(total):
            visible = block_of(key, prompt, size) <= block_of(row, prompt, size)
            assert bool(mask[row - start, key]) is visible, (row, key)


def test_block_causal_ends_of_a_small_case_by_hand() -> None:
    ends = block_causal_ends(0, 10, prompt_length=3, block_size=4, total=10)
    assert ends.tolist() == [3, 3, 3, 7, 7, 7, 7, 10, 10, 10]
    assert block_causal_ends(5, 8, 3, 4, 10).tolist() == [7, 7, 10]


@pytest.mark.parametrize("length", [1, 2, 7])
def test_causal_rows_see_themselves_and_all_before(length: int) -> None:
    mask = visible_mask(causal_ends(length), length, groups=1)[0, 0]
    assert mask.tolist() == [[key <= row for key in range(length)] for row in range(length)]


@pytest.mark.parametrize("length", [1, 2, 7])
def test_full_rows_see_everything(length: int) -> None:
    assert visible_mask(full_ends(length), length, groups=1)[0, 0].all()


def test_a_mask_repeats_its_rows_for_every_query_head_of_a_group() -> None:
    ends = torch.tensor([[1, 2], [2, 3]])
    mask = visible_mask(ends, num_keys=3, groups=2)
    one = [[True, False, False], [True, True, False]]
    two = [[True, True, False], [True, True, True]]
    assert mask.tolist() == [[one + one], [two + two]]


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """Softmax of dot products, one row and one head at a time."""
    batch, rows, heads, dim = q.shape
    groups = heads // k.shape[1]
    out = torch.zeros(batch, rows, heads, dim)
    for b in range(batch):
        for row in range(rows):
            for head in range(heads):
                keys = k[b, head // groups, : ends[row]]
                scores = [float(q[b, row, head] @ key) / math.sqrt(dim) for key in keys]
                top = max(scores)
                weights = [math.exp(score - top) for score in scores]
                for weight, value in zip(weights, v[b, head // groups], strict=False):
                    out[b, row, head] += weight / sum(weights) * value
    return out.reshape(batch, rows, heads * dim)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 6), (5, 5), (3, 8)])
@pytest.mark.parametrize("kind", ["none", "block"])
def test_attention_equals_a_naive_softmax(
    heads: int, kv_heads: int, rows: int, keys: int, kind: str
) -> None:
    generator = torch.Generator().manual_seed(heads * 100 + keys)
    q = torch.randn(2, rows, heads, 8, generator=generator)
    k, v = (torch.randn(2, kv_heads, keys, 8, generator=generator) for _ in range(2))
    ends, mask = [keys] * rows, None
    if kind == "block":
        ends = block_causal_ends(keys - rows, keys, 2, 2, keys).tolist()
        mask = visible_mask(torch.tensor(ends), keys, heads // kv_heads)
    torch.testing.assert_close(attend(q, k, v, mask), naive(q, k, v, ends), rtol=0, atol=1e-5)
