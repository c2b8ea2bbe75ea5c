"""A fair race on one device: the lane with the least time on its own clock always moves next.

Each event carries the seconds its decoder measured, so time spent in other lanes, in this module
or on the page never counts (DESIGN section 6). One thread owns the device: runs of several
visitors queue for it and never disturb each other's times. A lane on another machine is asked only
once it has something to tell; until then the others go on, for as long as it takes, their clocks
behind its. Its requests queue with the device, so that it serves one race at a time as well. Knows
nothing of tokens or screens.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import takewhile
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Any

from d2f.errors import D2FError

from .lanes.lane import Lane, Moved, Opened, Stopped

INTERVAL = 1 / 30
HEARTBEAT = 1.0
BUDGET = 120.0
LOADING = 1800.0  # seconds that models may take to load, compiling included
PATIENCE = 0.05  # seconds to wait for another machine before looking around
FAREWELL = 0.5  # seconds at most that the next run waits for the last one's end to be told
WAITING, PREPARING, RUNNING, DONE, STOPPED = "waiting", "preparing", "running", "done", "stopped"


def never() -> bool:
    """Of a run that nobody stops."""
    return False


def merge(lanes: Sequence[Lane], stopped: Stopped = never) -> Iterator[Moved]:
    """Advances lanes by virtual clock; yields the index of the lane that moved and its event."""
    running = list(range(len(lanes)))
    while running and not stopped():
        index = min(running, key=lambda i: lanes[i].clock)
        if not lanes[index].ready(PATIENCE):
            continue
        event = lanes[index].advance()
        if event is None:
            running.remove(index)
        else:
            yield index, event


def here(make: Callable[..., Sequence[Lane]]) -> Callable[..., Opened]:
    """Opens lanes of this process: ``make`` with what is asked, then whether it is to end."""

    def opened(*request: Any) -> Opened:
        *asked, stopped = request
        lanes = make(*asked)
        return lanes, merge(lanes, stopped)

    return opened


class Device(ThreadPoolExecutor):
    """The one thread that owns the compute device, and the line of runs before it.

    Who sets ``closing`` ends every run within a step: the program is about to end.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1, thread_name_prefix="device")
        self._line: list[Future[None]] = []
        self._lock = Lock()
        self.closing = Event()

    def line_up(self, work: Callable[[], None]) -> Future[None]:
        """Has ``work`` done in its turn."""
        with self._lock:
            self._line = [turn for turn in self._line if not turn.done()]
            self._line.append(self.submit(work))
            return self._line[-1]

    def ahead(self, turn: Future[None]) -> int:
        """How many runs are to end before ``turn`` begins."""
        with self._lock:
            return sum(not each.done() for each in takewhile(lambda t: t is not turn, self._line))


DEVICE = Device()


class Overdue(D2FError):
    """A run held the device for longer than one visitor may."""


class Race:
    """One visitor's run: computes on the device thread, hands out events in paced batches.

    ``prepare`` opens the lanes on the device thread, so loading a model waits its turn as well; it
    is told how to ask whether the run is to end. ``budget`` bounds the seconds of wall clock for
    which the lanes may hold the device. Setting ``stop`` ends the work within one step, like
    :meth:`stop`. A step of this process that never ends holds the device for ever, since no thread
    can be killed; lanes elsewhere are asked to end, and need not comply.

    As a context it keeps the device, for ``FAREWELL`` at most, until it is left: on a CPU, whatever
    is still to be told of this run would slow the next.
    """

    def __init__(
        self,
        prepare: Callable[[Stopped], Opened],
        device: Device = DEVICE,
        budget: float = BUDGET,
        stop: Event | None = None,
    ) -> None:
        self.lanes: Sequence[Lane] = ()
        self.phase = WAITING
        self._prepare = prepare
        self._device = device
        self._budget = budget
        self._moved: SimpleQueue[Moved | None] = SimpleQueue()
        self._stop = stop or Event()
        self._turn: Future[None] | None = None
        self._until = math.inf
        self._ended = Event()
        self._failure: BaseException | None = None
        self._left = Event()
        self._left.set()

    def __enter__(self) -> "Race":
        self._left.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    @property
    def ahead(self) -> int:
        """How many runs are to end before this one begins."""
        return self._device.ahead(self._turn) if self._turn else 0

    @property
    def stopping(self) -> bool:
        """Whether the work is to end, or has been ended."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ends the work within one step. Safe at any time, from any thread."""
        self._stop.set()

    def batches(
        self, interval: float = INTERVAL, heartbeat: float = HEARTBEAT
    ) -> Iterator[list[Moved]]:
        """What moved, gathered for an ``interval`` from the first event of each batch on.

        An empty batch each ``heartbeat`` while nothing moves lets the caller show ``phase`` and
        notice a closed page. Whatever ``prepare`` or a decoder raised is raised here, and
        :class:`Overdue` when the budget is spent.
        """
        self._turn = work = self._device.line_up(self._work)
        try:
            while True:
                batch, over = self._take(heartbeat, interval)
                if batch or not over:
                    yield batch
                if over or (self.stopping and self.phase == WAITING):
                    break
            if not over and work.cancel():
                self.phase = STOPPED
                return
            while not over:  # it had just begun
                _, over = self._take(heartbeat, interval)
            if isinstance(self._failure, Exception):
                raise self._failure
            if self._failure is not None:
                raise RuntimeError(f"a panic: {self._failure!r}") from self._failure
        finally:
            self.stop()

    def _take(self, timeout: float, interval: float) -> tuple[list[Moved], bool]:
        """Waits for an event, gathers more; all that has arrived, and whether that was the last."""
        batch: list[Moved] = []
        try:
            item = self._moved.get(timeout=timeout)
            self._ended.wait(interval)
            while item is not None:
                batch.append(item)
                item = self._moved.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _work(self) -> None:
        try:
            with ExitStack() as lanes:  # all are closed, whatever closing one of them raises
                try:
                    self._run()
                finally:
                    for lane in self.lanes:
                        lanes.callback(lane.close)
        except BaseException as error:  # some libraries' panics are no Exception
            self._failure = error
        finally:
            self.phase = STOPPED if self.stopping else DONE
            self._ended.set()
            self._moved.put(None)
            if not self._device.closing.is_set():
                self._left.wait(FAREWELL)

    def _run(self) -> None:
        if self._over():
            return
        self.phase, self._until = PREPARING, time.monotonic() + LOADING
        self.lanes, moves = self._prepare(self._over)
        self._until = time.monotonic() + self._budget
        for lane in self.lanes:
            lane.get_ready(self._over)
        self.phase = RUNNING
        for moved in moves:
            self._moved.put(moved)
        if not self.lanes and not self.stopping:
            raise Overdue(f"The models did not load within {LOADING / 60:g} minutes. Try again.")
        if self._over() and not self.stopping:
            self._cut()

    def _over(self) -> bool:
        """Whether the run is to end: stopped, past its budget, or the program is about to end."""
        if self._device.closing.is_set():
            self.stop()
        return self.stopping or time.monotonic() > self._until

    def _cut(self) -> None:
        """The budget is spent: a lane elsewhere fails alone, one here ends the run."""
        text = (
            f"The server stopped the run after {self._budget:g} s, the longest that a run may take "
            "here. Ask for fewer new tokens."
        )
        late = [lane for lane in self.lanes if not lane.finished]
        if any(lane.feed is None for lane in late):
            raise Overdue(text)
        for lane in late:
            lane.failure = lane.failure or text
