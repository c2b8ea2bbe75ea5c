"""The cache: windows written in place, a final prefix that only grows, bounds that hold."""

import pytest
import torch

from d2f.nn.cache import KVCache


def rows(*values: float) -> torch.Tensor:
    """(1, 2, T, 3): row t is full of values[t], the second head of its negative."""
    row = torch.tensor(values)[:, None].expand(-1, 3)
    return torch.stack((row, -row))[None]


def test_a_new_cache_is_empty_and_of_the_given_shape() -> None:
    cache = KVCache(layers=3, kv_heads=2, head_dim=4, capacity=5, dtype=torch.bfloat16)
    assert cache.length == 0
    assert cache.capacity == 5
    assert [tuple(k.shape) for k in cache.keys + cache.values] == [(1, 2, 5, 4)] * 6
    assert {t.dtype for t in cache.keys + cache.values} == {torch.bfloat16}


def test_a_write_returns_everything_up_to_the_windows_end() -> None:
    cache = KVCache(1, 2, 3, 6)
    cache.write(0, 0, rows(1, 2), rows(10, 20))
    keys, values = cache.write(0, 2, rows(3, 4, 5), rows(30, 40, 50))
    assert torch.equal(keys, rows(1, 2, 3, 4, 5))
    assert torch.equal(values, rows(10, 20, 30, 40, 50))


def test_scratch_rows_are_overwritten_and_final_ones_kept() -> None:
    cache = KVCache(1, 2, 3, 6)
    cache.write(0, 0, rows(1, 2, 3, 4), rows(1, 2, 3, 4))
    cache.advance(2)
    keys, values = cache.write(0, cache.length, rows(7, 8, 9), rows(-7, -8, -9))
    assert torch.equal(keys, rows(1, 2, 7, 8, 9))
    assert torch.equal(values, rows(1, 2, -7, -8, -9))
    # A shorter window hides the old scratch rows behind it.
    keys, _ = cache.write(0, cache.length, rows(5), rows(5))
    assert torch.equal(keys, rows(1, 2, 5))


def test_a_write_returns_views_not_copies() -> None:
    cache = KVCache(1, 2, 3, 4)
    keys, values = cache.write(0, 0, rows(1, 2), rows(3, 4))
    assert keys.data_ptr() == cache.keys[0].data_ptr()
    assert values.data_ptr() == cache.values[0].data_ptr()


def test_layers_do_not_share_memory() -> None:
    cache = KVCache(2, 2, 3, 4)
    cache.write(1, 0, rows(1, 2), rows(3, 4))
    assert not cache.keys[0].any()
    assert not cache.values[0].any()


def test_advancing_moves_only_the_length() -> None:
    cache = KVCache(1, 2, 3, 4)
    cache.write(0, 0, rows(1, 2, 3, 4), rows(1, 2, 3, 4))
    cache.advance(0)
    assert cache.length == 0
    cache.advance(3)
    cache.advance(1)
    assert cache.length == 4
    assert torch.equal(cache.keys[0], rows(1, 2, 3, 4))


@pytest.mark.parametrize("count", [-1, 3, 100])
def test_advancing_beyond_the_capacity_or_back_is_a_bug(count: int) -> None:
    cache = KVCache(1, 2, 3, 4)
    cache.advance(2)
    with pytest.raises(AssertionError, match=f"cannot advance by {count}"):
        cache.advance(count)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_window_that_does_not_start_where_the_final_rows_end_is_a_bug(start: int) -> None:
    cache = KVCache(1, 2, 3, 8)
    cache.advance(2)
    cache.check_window(2, 6)
    with pytest.raises(AssertionError, match=f"window starts at {start}, final rows end at 2"):
        cache.check_window(start, 1)


def test_a_window_that_does_not_fit_is_refused() -> None:
    cache = KVCache(1, 2, 3, 8)
    with pytest.raises(ValueError, match="window ends at 9, cache capacity is 8"):
        cache.check_window(0, 9)
