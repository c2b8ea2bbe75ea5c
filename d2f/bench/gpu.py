"""``.ci/gpu``: all that a GPU must prove, in less time than one may be lent for.

Prints one line of JSON a part. A part that could not end in time is not begun, and one that fails
is told and stops no other. Needs nothing but torch, transformers and what they bring.
"""

import argparse
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Any

import torch

from d2f.bench import proofs, shape_suite
from d2f.bench.proofs import Place, Told
from d2f.cli.options import Parser
from d2f.cli.output import check_output, write_output
from d2f.cli.program import program
from d2f.errors import one_line
from d2f.memory import find_device
from d2f.places import ASSETS
from d2f.strict_json import to_json

FORMAT = 1
ROOT = Path(__file__).resolve().parents[2]
TESTS, MARK = ROOT / "tests", "@pytest.mark.gpu"
# The whole is over after so many seconds; what hangs is ended as many later.
SECONDS, GRACE = 500.0, 25.0
DESCRIPTION = """\
Check on this GPU that its answers are right, and measure how fast it steps: graphs against eager
tokens, attention against float32, waits a step, loading, threads, changes of the block size, the
tests that need a GPU, and the shape suite. One line of JSON a part; status 1 if one failed."""
EXAMPLES = """\
examples:
  .ci/gpu
  .ci/gpu --parts graphs waits
  .ci/gpu --tiny --device cpu"""
# Of the shape suite, what a race meets.
MEASURED = ["--attentions", "sdpa", "flash", "--contexts", "256", "1024", "4096", "8192"]
WINDOWS = ["--windows", "1", "32", "64", "96", "128", "192", "256", "512"]


@dataclass(frozen=True)
class Part:
    """A line of the report; begun only if so many seconds are left."""

    name: str
    check: Callable[[Place, float], Told]
    seconds: float
    cuda: bool = False


def proof(check: Callable[[Place], Told]) -> Callable[[Place, float], Told]:
    """A proof as a part's check: it takes the time it takes."""
    return lambda place, left: check(place)


def tests(place: Place, left: float) -> Told:
    """The tests that need a GPU; others want packages that a GPU's machine may lack."""
    missing = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    if missing:
        return {"skipped": f"needs {' and '.join(missing)}"}
    files = [str(path) for path in sorted(TESTS.glob("test_*.py")) if MARK in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left)
    return {"ok": done.returncode == 0, "told": done.stdout.splitlines()[-30:]}


def shape(model: str, *windows: str) -> Callable[[Place, float], Told]:
    """The shape suite, in the time that is left."""

    def check(place: Place, left: float) -> Told:
        sizes = ["--tiny", "--forwards", "eager", "graphs"] if place.tiny else [*MEASURED, *windows]
        asked = ["--suite", "shape", "--model", model, "--random", "--device", str(place.device)]
        seconds = str(max(left - GRACE, 1.0))
        result = shape_suite.run(shape_suite.parse([*asked, *sizes, "--seconds", seconds]))
        return {"ok": bool(result["rows"]), "result": result}

    return check


PARTS = (
    Part("where", proof(proofs.where), 5),
    Part("loading", proof(proofs.loading), 30),
    Part("attention", proof(proofs.attention), 60),
    Part("graphs", proof(proofs.graphs), 60),
    Part("blocks", proof(proofs.blocks), 60),
    Part("threads", proof(proofs.threads), 20),
    Part("waits", proof(proofs.waits), 20, cuda=True),
    Part("tests", tests, 60, cuda=True),
    Part("shape llama", shape("llama-3-8b-instruct", "--windows", "1"), 60),
    Part("shape llada", shape("llada", *WINDOWS), 60),
    Part("flex", proof(proofs.flex), 90, cuda=True),
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = Parser(".ci/gpu", DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    names = [part.name for part in PARTS]
    add("--device", default="cuda", help="torch device (default: cuda)")
    add("--tiny", action="store_true", help="small sizes, to try the checks themselves")
    add("--parts", nargs="+", choices=names, default=names, help="default: all")
    add("--seconds", type=float, default=SECONDS, help=f"over after (default: {SECONDS:g})")
    add("--out", type=Path, metavar="FILE", help="default: assets/bench/gpu/GPU.json on a GPU")
    return parser.parse_args(argv)


def line_of(part: Part, place: Place, left: float) -> Told:
    """A part's line: what it found, why it was not begun, or how it failed."""
    told: Told = {"part": part.name}
    if part.cuda and not place.cuda:
        return told | {"skipped": "needs a CUDA GPU"}
    if left < part.seconds:
        return told | {"skipped": f"needs {part.seconds:g} s, and {max(left, 0):.0f} are left"}
    started = time.monotonic()
    try:
        told |= part.check(place, left)
    except Exception as error:  # whatever it is, the other parts have something to tell
        logging.getLogger(__name__).exception("part %s", part.name)
        told |= {"ok": False, "error": one_line(f"{type(error).__name__}: {error}")}
    return told | {"part_seconds": round(time.monotonic() - started, 2)}


def file_of(place: Place) -> Path | None:
    """Where a GPU's results are kept, by its name; nowhere for a CPU."""
    if not place.cuda:
        return None
    name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(place.device).lower())
    return ASSETS / "bench" / "gpu" / f"{name.strip('-')}.json"


def overdue(lines: list[Told]) -> None:
    """Ends the program: a part hangs where nothing else can end it."""
    print(to_json({"part": "all", "ok": False, "error": f"hangs after {len(lines)} parts"}))
    sys.stdout.flush()
    os._exit(1)


@program(".ci/gpu")
def main(argv: Sequence[str] | None = None) -> int:
    """Every part that was asked for; 1 if one failed."""
    args = parse(argv)
    place = Place(find_device(args.device), args.tiny)
    out = args.out or file_of(place)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    check_output("--out", out)
    until = time.monotonic() + args.seconds
    lines: list[Told] = []
    watch = Timer(args.seconds + GRACE, overdue, (lines,))
    watch.daemon = True
    watch.start()
    for part in PARTS:
        if part.name in args.parts:
            lines.append(line_of(part, place, until - time.monotonic()))
            print(to_json(lines[-1]), flush=True)
    watch.cancel()
    if out is not None:
        write_output("--out", out, to_json(report(lines), indent=1))
    return int(not all(line.get("ok", True) for line in lines))


def report(lines: Sequence[Told]) -> dict[str, Any]:
    """The file: every line, under a format."""
    return {"format": FORMAT, "parts": list(lines)}


if __name__ == "__main__":
    sys.exit(main())
