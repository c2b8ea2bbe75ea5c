"""Runs an untrusted Python function on given arguments and returns what it computed.

A fresh interpreter, isolated (`-I -S`), without environment, in an empty folder that is deleted;
limits on time, memory, file size and processes; as nobody where it was root; and with an audit
hook that refuses files, processes, sockets and foreign modules. The child never sees the expected
results, so a forged report is worth nothing: it must hold the right values. This stops accidents
and mischief of small models; it is no substitute for a container. Knows nothing of tasks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import IO

WALL_SECONDS = 3.0
MAX_SOURCE = 20_000
MAX_REPORT = 65_536

CHILD = r"""
import collections, contextlib, functools, itertools, json, math, os, re, resource, string, sys

if os.getuid() == 0:
    # Root is bound by no process limit and may signal its parent; some containers forbid this.
    with contextlib.suppress(PermissionError):
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
for name, limit in (
    ("RLIMIT_AS", 512 << 20), ("RLIMIT_CPU", 2), ("RLIMIT_FSIZE", 65536),
    ("RLIMIT_NPROC", 0), ("RLIMIT_CORE", 0),
):
    resource.setrlimit(getattr(resource, name), (limit, limit))
job = json.loads(sys.stdin.read())
report = os.dup(1)
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)

def refuse(event, args):
    if event not in ("compile", "exec", "builtins.id", "object.__getattr__"):
        raise PermissionError(event)

write, dumps, space = os.write, json.dumps, {"__name__": "candidate"}
source = compile(job["source"], "candidate", "exec")
sys.addaudithook(refuse)
exec(source, space)
function = space[job["name"]]
write(report, dumps([function(*args) for args in job["calls"]]).encode())
os._exit(0)
"""


def call_untrusted(source: str, name: str, calls: list[list[object]]) -> list[object] | None:
    """The results of calling `name` from `source` with each argument list, or None on failure."""
    if len(source) > MAX_SOURCE:
        return None
    job = json.dumps({"source": source, "name": name, "calls": calls}).encode()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as report:
        if not _finishes(job, folder, report):
            return None
        report.seek(0)
        return _parse(report.read(MAX_REPORT))


def _finishes(job: bytes, folder: str, report: IO[bytes]) -> bool:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=report,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={},
        start_new_session=True,
    )
    with child:
        try:
            child.communicate(job, timeout=WALL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end_session(child)
    return child.returncode == 0


def _end_session(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _parse(report: bytes) -> list[object] | None:
    try:
        results = json.loads(report)
    except (ValueError, RecursionError):
        return None
    return results if isinstance(results, list) else None
