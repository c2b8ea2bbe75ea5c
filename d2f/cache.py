"""Keys and values of a final prefix, plus scratch rows for the window in flight.

Every forward writes its whole window in place at absolute positions; ``length`` counts the rows
that are final, and advancing it is all that caching means: no copy, no crop. Rows at and beyond
``length`` are scratch the next forward overwrites. Keys are stored rotated. Batch size is one.
Knows nothing of blocks or masks: that a row is final is the caller's claim.
"""

import torch
from torch import Tensor


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
        end = start + keys.shape[2]
        self.keys[layer][:, :, start:end] = keys
        self.values[layer][:, :, start:end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def check_window(self, start: int, rows: int) -> None:
        """A window starts where the final rows end, and fits."""
        assert start == self.length, f"window starts at {start}, final rows end at {self.length}"
        if start + rows > self.capacity:
            raise ValueError(f"window ends at {start + rows}, cache capacity is {self.capacity}")

    def advance(self, rows: int) -> None:
        """Declare the next ``rows`` rows final."""
        assert 0 <= rows <= self.capacity - self.length, f"cannot advance by {rows}"
        self.length += rows
