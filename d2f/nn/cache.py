"""Keys and values of a final prefix, plus scratch rows for the window in flight.

Every forward writes its whole window in place at absolute positions; ``length`` counts the rows
that are final, and advancing it is all that caching means: no copy, no crop. Rows at and beyond
``length`` are scratch the next forward overwrites. Keys are stored rotated. Batch size is one.
Knows nothing of blocks or masks: that a row is final is the caller's claim.

:class:`FixedRows` is the same cache for forwards of fixed shape, see :mod:`d2f.nn.compiled`.
"""

import torch
from torch import Tensor

from d2f.errors import InvalidInput


class KVCache:
    """Preallocated keys and values, one tensor a layer.

    A single tensor for all layers would make compiled code copy the whole cache at each write.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (1, kv_heads, capacity, head_dim)
        self.capacity = capacity
        self.length = 0
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a window at ``start``; returns all keys and values up to its end.

        Args:
            keys, values: (1, K, T, D).

        Returns:
            Views (1, K, start + T, D).
        """
        rows = keys.shape[2]
        all_keys, all_values = self.keys[layer], self.values[layer]
        all_keys.narrow(2, start, rows).copy_(keys)
        all_values.narrow(2, start, rows).copy_(values)
        end = start + rows
        return all_keys.narrow(2, 0, end), all_values.narrow(2, 0, end)

    def clear(self) -> None:
        """As new: no row is final, and every row is zero."""
        self.length = 0
        with torch.inference_mode():
            for rows in (*self.keys, *self.values):
                rows.zero_()

    def check_window(self, start: int, rows: int) -> None:
        """A window starts where the final rows end, and fits."""
        assert start == self.length, f"window starts at {start}, final rows end at {self.length}"
        if start + rows > self.capacity:
            raise InvalidInput(f"window ends at {start + rows}, cache capacity is {self.capacity}")

    def advance(self, rows: int) -> None:
        """Declare the next ``rows`` rows final."""
        assert 0 <= rows <= self.capacity - self.length, f"cannot advance by {rows}"
        self.length += rows


class FixedRows:
    """A cache seen from a forward of fixed shape: no length or offset in it is the host's.

    Args:
        positions: (T,) where the window's rows go, ascending; padding rows go behind the others.
        extent: how many rows are read, at least to the window's end; what lies behind the rows
            written so far is hidden by the visible ends alone.
    """

    def __init__(self, cache: KVCache, positions: Tensor, extent: int) -> None:
        self.cache = cache
        self.positions = positions
        self.extent = extent

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a window (1, K, T, D) at the positions; returns views (1, K, extent, D)."""
        all_keys, all_values = self.cache.keys[layer], self.cache.values[layer]
        all_keys[:, :, self.positions] = keys
        all_values[:, :, self.positions] = values
        return all_keys[:, :, : self.extent], all_values[:, :, : self.extent]
