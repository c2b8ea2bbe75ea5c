"""Lanes that compute in a process of their own, so that serving pages does not slow them.

A page's server runs Python for every visitor, and the threads of one process take turns at that.
So the models get a process, :mod:`app.child`, and the server keeps to what they leave of the
processor. :mod:`app.elsewhere` makes lanes of what is told. Knows nothing of what a run is.
"""

import os
import weakref
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from .child import DONE, FAILED, STEP, STOP, main
from .elsewhere import Steps, borrowing
from .lanes import Asked, Host, Opened, Question, Stopped, pair_lanes
from .race import here
from .rivals import RivalPair

SPAWN = get_context("spawn")  # a fork would take the server's threads' locks along
GIVE_WAY = 10  # how much nicer the server is than the models; Linux counts it by the thread


class Apart:
    """:func:`app.elsewhere.compute` in another process, which stays for the next run.

    One thread uses it, and one run at a time. When the process dies the run fails, and the next
    run starts another. The process ends with this object, at the latest.
    """

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None

    def __call__(self, asked: Asked, host: Host, stopped: Stopped) -> Steps:
        self.start()
        self._send((asked, host))
        kind = STEP
        try:
            while not stopped():
                kind, value = self._receive()
                if kind == DONE:
                    return
                if kind == FAILED:
                    error, trace = value
                    raise error from RuntimeError(f"in the models' process\n{trace}")
                yield value
        finally:
            if kind == STEP and self._process is not None:  # left before its end
                self._send(STOP)
                while self._receive()[0] == STEP:
                    pass

    def start(self) -> None:
        """Starts the process, if none is there."""
        if self._process is None:
            self._pipe, theirs = SPAWN.Pipe()
            self._process = SPAWN.Process(target=main, args=(theirs,))
            self._process.start()
            self._end = weakref.finalize(self, _end, self._process, self._pipe)
            theirs.close()

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._end()
            self._process = None

    def _send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except ConnectionError:
            pass  # what it died of is told when it is listened to

    def _receive(self) -> tuple[str, Any]:
        process = self._process
        assert process is not None
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            process.join()
            ended = f"The models' process ended, code {process.exitcode}."
            self.close()
            raise RuntimeError(ended) from error


def _end(process: SpawnProcess, pipe: Connection) -> None:
    process.kill()
    process.join()
    process.close()
    pipe.close()


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
