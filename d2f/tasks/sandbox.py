"""Runs an untrusted Python function on given arguments and returns what it computed.

A fresh interpreter, isolated (`-I -S`), without environment, in an empty folder that is deleted;
limits on time, memory, file size and processes; as nobody where it was root; and with an audit
hook that refuses files, processes, sockets and foreign modules. What makes files and is not audited
is taken away, and so is what could load it again. The child never sees the expected
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
from collections.abc import Sequence
from typing import IO

WALL_SECONDS = 3.0
MAX_SOURCE = 20_000
MAX_REPORT = 65_536
RAISED = "raised"
LOADED = {"collections", "functools", "itertools", "json", "math", "os", "re", "string", "sys"}

CHILD = r"""
import _imp, posix
import collections, contextlib, functools, itertools, json, math, os, re, resource, string, sys

job = json.loads(sys.stdin.read())
for name in job["modules"]:
    __import__(name)  # before nobody may read them
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
for module, names in (
    (os, ("mkfifo", "mknod")), (posix, ("mkfifo", "mknod")),
    (_imp, ("create_builtin", "exec_builtin", "create_dynamic", "exec_dynamic")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for names in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd,
              os.supports_follow_symlinks):
    names.clear()
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
try:
    results = [function(*args) for args in job["calls"]]
except (PermissionError, MemoryError):
    raise
except Exception:
    results = "raised"
write(report, dumps(results).encode())
os._exit(0)
"""


def call_untrusted(source: str, name: str, calls: list[list[object]]) -> list[object] | None:
    """The results of calling `name` from `source` with each argument list, or None on failure."""
    report = run_untrusted(source, name, calls)
    return report if isinstance(report, list) else None


def run_untrusted(
    source: str, name: str, calls: list[list[object]], modules: Sequence[str] = ()
) -> object:
    """The results as in :func:`call_untrusted`; RAISED if the function raised; None if not run.

    `modules` are loaded before `source`, which may import them beside LOADED.
    """
    if len(source) > MAX_SOURCE:
        return None
    job = {"source": source, "name": name, "calls": calls, "modules": modules}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as report:
        if not _finishes(json.dumps(job).encode(), folder, report):
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


def _parse(report: bytes) -> object:
    try:
        return json.loads(report)
    except (ValueError, RecursionError):
        return None
