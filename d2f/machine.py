"""What machine this is: no speed means anything without it. Also which dtype suits it.

Knows no model and no benchmark.
"""

import math
import os
import platform
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is Arm's


def cpu_fields() -> dict[str, str]:
    """The first processor's entry in ``/proc/cpuinfo``; empty where there is none."""
    if not CPUINFO.is_file():
        return {}
    entry = CPUINFO.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in entry.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def native_bf16() -> bool:
    """Whether this CPU computes bfloat16 itself; elsewhere float32 is faster."""
    cpu = cpu_fields()
    flags = cpu.get("flags", "") + " " + cpu.get("Features", "")
    return not NATIVE_BF16.isdisjoint(flags.split())


def default_dtype(device: str, *, embedded: bool) -> str:
    """bfloat16 on a GPU and, for large models, where the CPU computes it natively; else float32.

    On such a CPU the embedded models are no faster in bfloat16, and the autoregressive one is
    slower by a fifth (measured side by side on a Xeon with AMX).
    """
    suits = not device.startswith("cpu") or (native_bf16() and not embedded)
    return "bfloat16" if suits else "float32"


# Bytes: more than any cache holds, of a CPU and of a GPU.
COPIED, COPIED_CUDA, COPIES = 2**27, 2**30, 5


@cache
def memory_bandwidth(device: str = "cpu", size: int | None = None) -> float:
    """Bytes a second that a device's memory gives to a copy, read and written: measured.

    The best of a few, so that another program's work hides as little of it as can be.

    Args:
        size: of the copy in bytes, a multiple of 4; None: one that no cache holds.
    """
    cuda = torch.device(device).type == "cuda"
    size = size or (COPIED_CUDA if cuda else COPIED)
    source = torch.ones(size // 4, device=device)
    target, best = torch.empty_like(source), math.inf
    for _ in range(COPIES):
        if cuda:
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        if cuda:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size / best


def machine(device: str = "cpu") -> dict[str, str | int | bool]:
    """The machine, in JSON values; ``threads`` are torch's at the time of the call."""
    if torch.device(device).type == "cuda":
        device = f"{device} ({torch.cuda.get_device_name(device)})"
    return {
        "cpu": cpu_fields().get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "bf16_native": native_bf16(),
        "device": device,
        "platform": platform.platform(),
    }


def versions(*more: str) -> dict[str, str]:
    """What the figures depend on, and ``more`` packages that they depend on."""
    installed = {name: version(name) for name in ("torch", "transformers", *more)}
    return {"python": platform.python_version(), **installed}
