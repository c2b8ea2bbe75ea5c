"""Several processes, each with a device and a share of the questions.

``accelerate launch`` and ``torchrun`` start them and say who each is. They exchange answers, which
are small, over gloo: on the host, whatever the devices are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as group

T = TypeVar("T")
# A share may end hours after another.
PATIENCE = timedelta(days=7)


class Share:
    """This process among ``count``, numbered from 0; by itself if there is one."""

    def __init__(self, number: int = 0, count: int = 1) -> None:
        self.number = number
        self.count = count

    def first_says(self, value: T) -> T:
        """The value of process 0, in every process."""
        if self.count == 1:
            return value
        said: list[T] = [value]
        group.broadcast_object_list(said, src=0)
        return said[0]

    def mine(self, values: Sequence[T]) -> Sequence[T]:
        """Every ``count``-th value, so that each process has about as many."""
        return values[self.number :: self.count]

    def everyones(self, value: T) -> list[T]:
        """The values of all processes, in all of them."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        group.all_gather_object(values, value)
        return values


@contextmanager
def sharing(launched: bool) -> Iterator[Share]:
    """This process's share, if it was ``launched`` with others."""
    if not launched:
        yield Share()
        return
    group.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Share(group.get_rank(), group.get_world_size())
    finally:
        group.destroy_process_group()
