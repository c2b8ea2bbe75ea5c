"""One thread owns the device: runs wait their turn in a bounded queue and stop within one step.

A run's events cross into the event loop that waits for them. Knows nothing of HTTP or models.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Busy(RuntimeError):
    """As many runs wait as may wait."""


class Job(Generic[T]):
    """One run and its events; to be made, read and cancelled in one event loop."""

    def __init__(self, source: Generator[T, None, None]) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T | Exception | None] = asyncio.Queue()
        self._cancelled = threading.Event()
        self.done: Future[None] = Future()

    def cancel(self) -> None:
        """Ends the work within one step, or before it began; ``events`` end early."""
        self._cancelled.set()
        if self.done.cancel():
            self._items.put_nowait(None)

    async def events(self, patience: float) -> AsyncIterator[T | None]:
        """The events; None each ``patience`` seconds without one. Raises what decoding raised."""
        while True:
            try:
                item = await asyncio.wait_for(self._items.get(), patience)
            except asyncio.TimeoutError:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def work(self) -> None:
        """Runs on the device thread."""
        try:
            with closing(self._source) as source:
                for event in source:
                    self._tell(event)
                    if self._cancelled.is_set():
                        break
        except Exception as error:
            self._tell(error)
        self._tell(None)

    def _tell(self, item: T | Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)


class Worker:
    """The device thread and its queue of at most ``queue`` runs behind the one that runs."""

    def __init__(self, queue: int) -> None:
        self._places = threading.BoundedSemaphore(queue + 1)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._jobs: set[Job[Any]] = set()

    def start(self, source: Generator[T, None, None]) -> Job[T]:
        """A job that waits its turn. Raises ``Busy`` when no place is free."""
        if not self._places.acquire(blocking=False):
            raise Busy("as many runs wait as may wait")
        job = Job(source)
        self._jobs.add(job)
        job.done = self._thread.submit(job.work)
        job.done.add_done_callback(lambda _: self._leave(job))
        return job

    def close(self) -> None:
        """Cancels every job and waits for the step under way."""
        for job in tuple(self._jobs):
            job.cancel()
        self._thread.shutdown()

    def _leave(self, job: Job[Any]) -> None:
        self._jobs.discard(job)
        self._places.release()
