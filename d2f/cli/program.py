"""How every program of the command line starts and ends.

Knows no program, and imports nothing that takes time.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import current_thread, main_thread
from typing import Protocol

from d2f.errors import D2FError

# Read when torch loads its OpenMP; spinning threads slow a busy machine many times over.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
LOST, BAD_INPUT, INTERRUPTED = 1, 2, 130
# What a file says that takes no more: its reader is gone, its disk is full or broken.
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EIO)


def calibrations() -> Path | None:
    """Where models' timings are kept: the user's cache; None where D2F_CALIBRATE is 0."""
    if os.environ.get("D2F_CALIBRATE") == "0":
        return None
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "d2f" / "calibrations"


class Main(Protocol):
    """A program: arguments, or those of the command line, to an exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


@contextmanager
def starting() -> Iterator[None]:
    """For a program's imports: torch takes seconds, and reads the environment while it loads.

    Ctrl-C then ends the program at once, since an exception would surface in the middle of some
    library's import as another one. A shell may have Ctrl-C ignored; then it stays ignored.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    fill_streams()
    before = signal.getsignal(signal.SIGINT)
    heard = current_thread() is main_thread() and before is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        if heard:
            signal.signal(signal.SIGINT, before)


def fill_streams() -> None:
    """Gives closed standard streams the null device.

    Else the next file opened would take the free number, and be written what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # Standard output stays None: a program whose answer nobody can read does not run.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)


def program(name: str) -> Callable[[Main], Main]:
    """Makes a main function end as every program does: with a status, and at most one line.

    0 or what the function returns; 2 for what the user can put right (``D2FError``); 130 for
    Ctrl-C; 1 where the output cannot be written, without a word if its reader went away. Anything
    else is a fault of the program, and Python shows its traceback.
    """

    def end(status: int, text: str) -> int:
        print(f"{name}: {' '.join(text.split())}", file=sys.stderr)
        return status

    def decorate(main: Main) -> Main:
        @wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            fill_streams()
            if sys.stdout is None:
                return end(BAD_INPUT, "standard output is closed; to drop it, use >/dev/null")
            try:
                try:
                    return main(argv)
                finally:
                    sys.stdout.flush()
            except D2FError as error:
                return end(BAD_INPUT, str(error))
            except KeyboardInterrupt:
                return end(INTERRUPTED, "interrupted")
            except OSError as error:
                if error.errno not in UNWRITABLE:
                    raise
                drop_output()
                gone = isinstance(error, BrokenPipeError)
                return LOST if gone else end(LOST, f"the output cannot be written: {error}")

        return run

    return decorate


def drop_output() -> None:
    """Has Python not try again, at exit, to write what could not be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
