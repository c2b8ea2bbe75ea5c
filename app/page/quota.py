"""Sliding-window rate limit, per visitor and overall."""

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Lock

MAX_NAME = 64


class Quota:
    """At most ``most`` uses a name and ``together`` in all within ``seconds``, in this process.

    The fewer the others have left, the fewer one name may have, so that a busy visitor cannot
    silence the rest: of the last ones each name has one. Names can be made up, hence the second
    bound, which also bounds memory. Safe from any thread.
    """

    def __init__(
        self,
        most: int,
        together: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._together, self._seconds, self._clock = most, together, seconds, clock
        self._uses: deque[tuple[float, str]] = deque()  # the latest last
        self._lock = Lock()

    def take(self, name: str) -> bool:
        """Whether this name may once more; if so, it is counted."""
        name = name[:MAX_NAME]
        with self._lock:
            now = self._clock()
            while self._uses and self._uses[0][0] <= now - self._seconds:
                self._uses.popleft()
            own = sum(each == name for _, each in self._uses)
            others = len(self._uses) - own
            most = math.ceil(self._most * (self._together - others) / self._together)
            if own >= most or len(self._uses) >= self._together:
                return False
            self._uses.append((now, name))
            return True
