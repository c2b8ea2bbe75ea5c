"""The models' process: answers what :mod:`app.apart` asks, one run after the other.

Imports little by itself: torch takes its seconds only once Ctrl+C is ignored and the server is
listened to. Knows nothing of what a run is.
"""

import logging
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

STOP = "stop"  # what the server says in mid-run; all else is a run to compute
STEP, DONE, FAILED = "step", "done", "failed"


class Child:
    """The process's end of the pipe; reads it all the time, so that a run can be stopped."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._asked: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._stop = Event()
        Thread(target=self._listen, daemon=True).start()

    def serve(self, compute: Callable[..., Generator[Any, None, None]]) -> None:
        """Computes one run after the other, for as long as the server lives."""
        while True:
            self._run(compute(*self._asked.get(), self._stop.is_set))

    def _run(self, steps: Generator[Any, None, None]) -> None:
        try:
            for step in steps:
                self._say(STEP, step)
            last = DONE, None
        except Exception as error:
            last = FAILED, (portable(error), traceback.format_exc())
        finally:
            steps.close()
        self._say(*last)

    def _listen(self) -> None:
        try:
            while True:
                request = self._pipe.recv()
                if request == STOP:
                    self._stop.set()
                else:
                    self._stop.clear()
                    self._asked.put(request)
        except (EOFError, ConnectionError):
            os._exit(0)  # the server is gone
        except Exception:
            logging.getLogger(__name__).exception(
                "the models' process was asked what it cannot read"
            )
            os._exit(1)

    def _say(self, kind: str, value: Any) -> None:
        try:
            self._pipe.send((kind, value))
        except ConnectionError:
            os._exit(0)  # the server is gone


def portable(error: Exception) -> Exception:
    """The error, or one that says as much where it cannot be pickled."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def main(pipe: Connection) -> None:
    """What runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's, which ends this process
    child = Child(pipe)
    from .elsewhere import compute

    child.serve(compute)
