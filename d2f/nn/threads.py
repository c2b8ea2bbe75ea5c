"""How many threads torch computes with, by lane.

The number belongs to the thread that sets it: lanes that run at once, in threads of their own, do
not meet, and lanes that take turns in one thread each set theirs for a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """For this long, this many threads compute what the calling one asks for; None: as many as do.

    Setting them takes a microsecond.
    """
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
