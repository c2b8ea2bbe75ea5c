"""The models' process: answers what :mod:`app.lanes.process` asks, one run after the other.

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
from threading import Event, Lock, Thread
from time import sleep
from typing import Any

# What the server says; all else is a run to compute.
STOP, READY = "stop", "ready"
# What this process says. It answers READY as soon as it could begin a run.
STEP, DONE, FAILED, ALIVE = "step", "done", "failed", "alive"
BEAT = 1.0  # seconds between two signs of life while it is at work


class Child:
    """The process's end of the pipe.

    It listens all the time, so that a run can be stopped, and gives signs of life while it is at
    work, which loading torch or a model is as well.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._asked: SimpleQueue[Any] = SimpleQueue()
        self._stop = Event()
        self._lock = Lock()
        self._idle = False
        for work in (self._listen, self._beat):
            Thread(target=work, daemon=True).start()

    def serve(self, compute: Callable[..., Generator[Any, None, None]]) -> None:
        """Computes one run after the other, for as long as the server lives."""
        while True:
            self._idle = True
            asked = self._asked.get()
            self._idle = False
            if asked == READY:
                self._say(READY)
            else:
                self._run(compute(*asked, self._stop.is_set))

    def _run(self, steps: Generator[Any, None, None]) -> None:
        last: tuple[str, Any]
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

    def _beat(self) -> None:
        while True:
            sleep(BEAT)
            if not self._idle:
                self._say(ALIVE)

    def _say(self, kind: str, value: Any = None) -> None:
        try:
            with self._lock:
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
    from .proxy import compute

    child.serve(compute)
