"""Lanes that compute in a process of their own, so that serving pages does not slow them.

A page's server runs Python for every visitor, and the threads of one process take turns at that.
So the models get a process, and the server keeps to what they leave of the processor. The two talk
in pickles over the process's pipes; :mod:`app.elsewhere` makes lanes of what is told. Knows nothing
of what a run is.
"""

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from app.elsewhere import Steps, borrowing, compute
from app.lanes import Asked, Host, Lane, Question, pair_lanes
from app.rivals import RivalPair

STEP, DONE, FAILED = "step", "done", "failed"
GIVE_WAY = 10  # how much nicer the server is than the models; Linux counts it by the thread
ROOT = Path(__file__).parents[1]
# Ctrl+C is the server's, which then leaves; ignored before torch takes its seconds to load.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path.insert(0, sys.argv[1]); from app.apart import main; main()"
)


class Apart:
    """:func:`app.elsewhere.compute` in another process, which stays for the next run.

    One thread uses it, and one run at a time. When the process dies the run fails, and the next
    run starts another.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count()

    def __call__(self, asked: Asked, host: Host) -> Steps:
        number, kind = next(self._numbers), STEP
        self.start()
        self._send((number, asked, host))
        try:
            while True:
                kind, value = self._receive()
                if kind == DONE:
                    return
                if kind == FAILED:
                    raise value
                yield value
        finally:
            if kind == STEP and self._process is not None:  # left before its end
                self._send((number, None, None))
                while self._receive()[0] == STEP:
                    pass

    def start(self) -> None:
        """Starts the process, if none is there."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(ROOT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _send(self, message: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            _write(self._process.stdin, message)
        except BrokenPipeError:
            pass  # what it died of is told when it is listened to

    def _receive(self) -> tuple[str, Any]:
        process = self._process
        assert process is not None and process.stdout is not None
        try:
            return pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            self.close()
            ended = f"The process of the models ended, code {process.returncode}."
            raise RuntimeError(ended) from error


def lanes_apart(apart: Apart) -> Callable[[Asked, Host], list[Lane]]:
    """Lanes by way of ``apart``.

    Rivals' lanes stay here: one may be on another machine, and is listened to from here.
    """
    elsewhere = borrowing(apart)

    def lanes(asked: Asked, host: Host) -> list[Lane]:
        if isinstance(asked, Question) and isinstance(asked.pair, RivalPair):
            return pair_lanes(asked, host)
        return elsewhere(asked, host)

    return lanes


def give_way() -> None:
    """Lets others go before this thread, and whatever it starts, where the processor is busy."""
    if hasattr(os, "nice"):
        os.nice(GIVE_WAY)


def _write(pipe: BinaryIO, message: Any) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


class _Requests:
    """Runs as they are asked for; which ones are to end is known while they are at work."""

    def __init__(self, pipe: BinaryIO) -> None:
        self.asked: SimpleQueue[tuple[int, Asked, Host] | None] = SimpleQueue()
        self.ended = -1
        Thread(target=self._read, args=(pipe,), daemon=True).start()

    def _read(self, pipe: BinaryIO) -> None:
        try:
            while True:
                number, asked, host = pickle.load(pipe)
                if asked is None:
                    self.ended = number
                else:
                    self.asked.put((number, asked, host))
        except EOFError:
            pass  # the server is gone
        finally:  # nothing can be asked any more, whatever happened
            self.ended = sys.maxsize
            self.asked.put(None)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Computes one run after the other, until nobody asks any more."""
    queue = _Requests(requests)
    for number, asked, host in iter(queue.asked.get, None):
        steps = compute(asked, host)
        try:
            for step in steps:
                if queue.ended >= number:
                    break
                _write(replies, (STEP, step))
            last = DONE, None
        except BrokenPipeError:
            raise
        except Exception as error:
            last = FAILED, _portable(error)
        finally:
            steps.close()
        _write(replies, last)


def _portable(error: Exception) -> Exception:
    """The error, or one that says as much where it cannot be pickled."""
    if not isinstance(error, ValueError):  # those are told to the visitor
        logging.getLogger(__name__).error("a run failed", exc_info=error)
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def main() -> None:
    """What runs in the process."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    with suppress(BrokenPipeError):  # the server left in mid-run
        serve(sys.stdin.buffer, answers)
