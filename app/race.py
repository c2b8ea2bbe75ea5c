"""A fair race on one device: the lane with the least time on its own clock always moves next.

Each event carries the seconds its decoder measured, so time spent in other lanes, in this module
or on the page never counts (DESIGN section 6). One thread owns the device: runs of several
visitors queue for it and never disturb each other's times. Knows nothing of tokens or screens.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event

from app.lanes import Lane
from d2f.events import StepEvent

DEVICE = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
INTERVAL = 1 / 30
HEARTBEAT = 0.25
WAITING, PREPARING, RUNNING, DONE, STOPPED = "waiting", "preparing", "running", "done", "stopped"

Moved = tuple[int, StepEvent]


def merge(lanes: Sequence[Lane]) -> Iterator[Moved]:
    """Advances lanes by virtual clock; yields the index of the lane that moved and its event."""
    running = list(range(len(lanes)))
    while running:
        index = min(running, key=lambda i: lanes[i].seconds)
        event = lanes[index].advance()
        if event is None:
            running.remove(index)
        else:
            yield index, event


class Race:
    """One visitor's run: computes on the device thread, hands out events in paced batches.

    ``prepare`` builds the lanes on the device thread, so loading a model waits its turn as well.
    """

    def __init__(self, prepare: Callable[[], Sequence[Lane]], device: Executor = DEVICE) -> None:
        self.lanes: Sequence[Lane] = ()
        self.phase = WAITING
        self._prepare = prepare
        self._device = device
        self._moved: SimpleQueue[Moved | None] = SimpleQueue()
        self._stop = Event()

    def stop(self) -> None:
        """Ends the work within one step. Safe at any time, from any thread."""
        self._stop.set()

    def batches(
        self, interval: float = INTERVAL, heartbeat: float = HEARTBEAT
    ) -> Iterator[list[Moved]]:
        """What moved since the last batch, at most one batch an ``interval``.

        An empty batch each ``heartbeat`` while nothing moves lets the caller show ``phase`` and
        notice a closed page. Whatever ``prepare`` or a decoder raised is raised here.
        """
        work = self._device.submit(self._work)
        try:
            while True:
                batch, over = self._take(heartbeat)
                if batch or not over:
                    yield batch
                if over or (self._stop.is_set() and self.phase == WAITING):
                    break
                time.sleep(interval)
            if work.cancel():
                self.phase = STOPPED
            else:
                work.result()
        finally:
            self.stop()

    def _take(self, timeout: float) -> tuple[list[Moved], bool]:
        """Everything that has arrived, waiting for the first; and whether that was the last."""
        batch: list[Moved] = []
        try:
            item = self._moved.get(timeout=timeout)
            while item is not None:
                batch.append(item)
                item = self._moved.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _work(self) -> None:
        try:
            self._run()
        finally:
            for lane in self.lanes:
                lane.close()
            self.phase = STOPPED if self._stop.is_set() else DONE
            self._moved.put(None)

    def _run(self) -> None:
        if self._stop.is_set():
            return
        self.phase = PREPARING
        self.lanes = self._prepare()
        self.phase = RUNNING
        for moved in merge(self.lanes):
            self._moved.put(moved)
            if self._stop.is_set():
                return
