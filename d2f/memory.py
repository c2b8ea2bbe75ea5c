"""Free memory of a device, and the refusal of a model that does not fit, before it is loaded.

Knows no model: a need is a number of bytes. What is free can be taken by others a moment later.
"""

from pathlib import Path

import torch

from d2f.catalogue.sizes import gigabytes
from d2f.errors import InvalidInput, TooLittleMemory

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def find_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        InvalidInput: torch knows no such device, or does not see it on this machine.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInput(
            f"device {device!r} is none that torch knows: try cpu or cuda"
        ) from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (found.index or 0):
            seen = f"{count} CUDA GPU{'s' * (count > 1)}" if count else "no CUDA GPU"
            raise InvalidInput(f"device {str(device)!r} is not there: torch sees {seen}")
    elif found.type != "cpu":
        try:
            torch.empty(1, device=found).tolist()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise InvalidInput(f"device {str(device)!r} is not there") from error
    return found


def free_memory(device: torch.device | str) -> int | None:
    """Bytes free on a device; None where the system does not say.

    Raises:
        InvalidInput: as find_device.
    """
    found = find_device(device)
    if found.type == "cuda":
        # What torch keeps of memory that no tensor uses any more is free as well.
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(found)[0]
    return host_memory(MEMINFO, CGROUP) if found.type == "cpu" else None


def host_memory(meminfo: Path, cgroup: Path) -> int | None:
    """Bytes a program may still take on Linux: of the machine, and of its container's limit."""
    if not meminfo.is_file():
        return None
    lines = (line.partition(":") for line in meminfo.read_text().splitlines())
    free = 1024 * int({name: value for name, _, value in lines}["MemAvailable"].split()[0])
    limit = cgroup / "memory.max"
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # Cached files give way, those just read as well.
        cached = int(stat["inactive_file"]) + int(stat["active_file"])
        used = int((cgroup / "memory.current").read_text()) - cached
        free = min(free, int(most) - used)
    return free


def require_memory(what: str, need: int, free: int | None, device: str, dtype: str) -> None:
    """:class:`TooLittleMemory` if ``need`` bytes are more than are ``free``; unknown passes."""
    if free is None or need <= free:
        return
    ways = "free some, take a larger device or a smaller model"
    if dtype == "float32":
        ways = f"load it in bfloat16, which takes half, or {ways}"
    raise TooLittleMemory(
        f"{what} needs about {gigabytes(need)} of memory in {dtype}, and {gigabytes(free)} "
        f"are free on {device!r}: {ways}"
    )
