"""Other processes, as the system shows them."""

import time
from collections.abc import Callable
from pathlib import Path


def running(pid: int) -> bool:
    """Whether a process is there that is not merely waiting to be collected."""
    try:
        return _stat(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [child for child in found if running(child) and int(_stat(child)[1]) == pid]


def command(pid: int) -> str:
    """How a process was started."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def _stat(pid: int) -> list[str]:
    """State, parent and more; before them stands a name that may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it holds, or comes to hold in time."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()
