"""Lanes that compute in a process of their own, so that serving pages does not slow them.

A page's server runs Python for every visitor, and the threads of one process take turns at that.
So the models get a process, :mod:`app.lanes.child`, and the server keeps to what they leave of the
processor. A process can be killed as well, which a thread cannot: one that hangs holds up no other
visitor. :mod:`app.lanes.proxy` makes lanes of what is told. Knows nothing of what a run is.
"""

import logging
import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from d2f.errors import D2FError

from ..race import PATIENCE, here
from .child import DONE, FAILED, READY, STEP, STOP, main
from .lane import Asked, Host, Opened, Question, Stopped, pair_lanes
from .proxy import Steps, borrowing
from .runners import RivalPair

SPAWN = get_context("spawn")  # a fork would take the server's threads' locks along
GIVE_WAY = 10  # how much nicer the server is than the models; Linux counts it by the thread
SILENCE = 60.0  # seconds without a sign of life; loading torch from a slow disk gives none for long
GRACE = 2.0  # seconds to end a run that is stopped, on top of the longest step it took
LOADING = 10.0  # what stands for that step before there was one
LOG = logging.getLogger(__name__)


class Lost(D2FError):
    """The models' process died or hung; another one takes its place."""


class Apart:
    """:func:`app.lanes.proxy.compute` in another process, which stays for the next run.

    One thread uses it, and one run at a time. A process that dies, or gives no sign of life for
    ``silence`` seconds, is replaced; in mid-run that fails the run. So is one that goes on with a
    run that was stopped, after ``grace`` seconds and as long as its steps take, or ``loading``
    seconds before the first one. It ends with this object, at the latest.
    """

    def __init__(
        self, silence: float = SILENCE, grace: float = GRACE, loading: float = LOADING
    ) -> None:
        self.silence, self.grace, self.loading = silence, grace, loading
        self._process: SpawnProcess | None = None

    def __call__(self, asked: Asked, host: Host, stopped: Stopped) -> Steps:
        if not self._is_ready(stopped):
            return  # it goes on loading torch, for the next run
        process, kind = self._process, STEP
        gaps: list[float] = []
        self._send((asked, host))
        try:
            since = time.monotonic()
            while told := self._hear([STEP, DONE, FAILED], stopped, self.silence):
                kind, value = told
                if kind == DONE:
                    return
                if kind == FAILED:
                    error, trace = value
                    raise error from RuntimeError(f"in the models' process\n{trace}")
                gaps.append(time.monotonic() - since)
                yield value
                since = time.monotonic()
        finally:
            if kind == STEP and self._process is process:  # left before its end
                self._leave(max(gaps[1:], default=self.loading))

    def start(self) -> None:
        """Starts the process, if there is none."""
        if self._process is None:
            self._pipe, theirs = SPAWN.Pipe()
            self._process = SPAWN.Process(target=main, args=(theirs,))
            self._process.start()
            self._end = weakref.finalize(self, _end, self._process, self._pipe)
            theirs.close()

    def close(self) -> None:
        """Ends the process, even one that hangs."""
        if self._process is not None:
            self._end()
            self._process = None

    def _is_ready(self, stopped: Stopped) -> bool:
        """Whether the process could begin a run, unless the run is stopped before that."""
        self.start()
        with suppress(Lost):  # since the last run, to which this one is nothing
            return self._asks_ready(stopped)
        return self._asks_ready(stopped)

    def _asks_ready(self, stopped: Stopped) -> bool:
        self._send(READY)
        return self._hear([READY], stopped, self.silence) is not None

    def _send(self, message: Any) -> None:
        with suppress(ConnectionError):  # it died, which is told when it is listened to
            self._pipe.send(message)

    def _hear(
        self, kinds: Sequence[str], enough: Stopped, silence: float
    ) -> tuple[str, Any] | None:
        """What the process says next of these kinds; None as soon as there is ``enough``.

        Raises:
            Lost: it died, or gave no sign of life for ``silence`` seconds.
        """
        heard = time.monotonic()
        while not enough():
            if self._pipe.poll(PATIENCE):
                kind, value = self._receive()
                if kind in kinds:
                    return kind, value
                heard = time.monotonic()
            elif time.monotonic() - heard > silence:
                raise self._replaced(f"gave no sign of life for {silence:g} s")
        return None

    def _receive(self) -> tuple[str, Any]:
        assert self._process is not None
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(self.grace)
            raise self._replaced(f"ended, code {self._process.exitcode}") from error

    def _leave(self, patience: float) -> None:
        """Has the process end its run, by force if need be."""
        self._send(STOP)
        until = time.monotonic() + self.grace + patience
        with suppress(Lost):  # whoever asked for the run has ended it
            if not self._hear([DONE, FAILED], lambda: time.monotonic() > until, self.grace):
                raise self._replaced("went on with a run that was stopped")

    def _replaced(self, why: str) -> Lost:
        """Starts another process, and says so."""
        LOG.error("the models' process %s: it is replaced", why)
        self.close()
        self.start()
        return Lost(f"The models' process {why}. It has been restarted: run the race again.")


def _end(process: SpawnProcess, pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.join(GRACE)
    if process.exitcode is not None:  # else the kernel does not let it go yet
        process.close()


def lanes_apart(apart: Apart) -> Callable[[Asked, Host, Stopped], Opened]:
    """Opens lanes by way of ``apart``.

    Rivals' lanes stay here: one may be on another machine, and is listened to from here.
    """
    elsewhere = borrowing(apart)

    def opened(asked: Asked, host: Host, stopped: Stopped) -> Opened:
        if isinstance(asked, Question) and isinstance(asked.pair, RivalPair):
            return here(pair_lanes)(asked, host, stopped)
        return elsewhere(asked, host, stopped)

    return opened


def give_way() -> None:
    """Lets others go before this thread, and whatever it starts, where the processor is busy."""
    if hasattr(os, "nice"):
        os.nice(GIVE_WAY)
