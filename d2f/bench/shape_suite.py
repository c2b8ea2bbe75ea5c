"""``d2f bench --suite shape``: how fast a network of the catalogue steps on this device.

What a user asks before downloading it: with ``--random`` no weights are needed.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from d2f.bench.shapes import (
    EAGER,
    FORWARDS,
    GRAPHS,
    Grid,
    How,
    Timing,
    caps,
    random_network,
    tiny,
    tokens_per_second,
)
from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS
from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.load import load_model
from d2f.checkpoints.plan import DTYPES
from d2f.checkpoints.resolve import find_shape
from d2f.cli.models import table
from d2f.cli.options import DTYPE_NAMES, Parser
from d2f.cli.output import check_output, write_output
from d2f.errors import D2FError, InvalidInput, one_line
from d2f.machine import machine, memory_bandwidth, native_bf16, versions
from d2f.memory import find_device, free_memory, require_memory
from d2f.nn.attention import BACKENDS, choose_backend
from d2f.nn.transformer import Transformer
from d2f.shape import ModelConfig
from d2f.strict_json import to_json

FORMAT = 1
# What wider windows may cost at most, against those of one block, to be called worth it.
WORTH = 1.25
CONTEXTS = (256, 512, 1024, 2048, 4096, 8192)
WINDOWS = (1, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
TINY_CONTEXTS, TINY_WINDOWS, TINY_COPY = (16, 40), (1, 8, 16), 2**20
# Between what tables measured by others give for D2F-LLaDA (2.7) and the paper's own tables.
RATES = (2.7, 4.5)
PROGRAM = "python -m d2f bench --suite shape"
DESCRIPTION = """\
Measure a decoding step, in milliseconds, over windows and contexts, by the shape of a network
alone: with --random its weights are drawn on the device, and nothing is downloaded. Each time
stands beside a floor, that of this device's own memory bandwidth. What tokens/s follow is computed,
not measured. Prints a table, then one line of JSON."""
EXAMPLES = """\
examples:
  python -m d2f bench --suite shape --model llada --random
  python -m d2f bench --suite shape --model llama-3-8b-instruct --random --windows 1 --seconds 60
  python -m d2f bench --suite shape --model llada --random --tiny --device cpu"""


@dataclass
class Found:
    """What came of a run: timings, ways that cannot be gone here and why, and cells left out."""

    rows: list[Timing] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    skipped: int = 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--suite", choices=("shape",), required=True, help="this suite")
    add("--model", required=True, help="a model or pair of the catalogue, a folder, or a hub id")
    add("--random", action="store_true", help="draw the weights instead of loading them")
    add("--tiny", action="store_true", help="a tiny network of that kind, to try the suite itself")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    add("--dtypes", nargs="+", choices=DTYPE_NAMES, help="default: all that the device computes")
    add("--attentions", nargs="+", choices=BACKENDS, help="default: all on a GPU, sdpa on a CPU")
    add("--forwards", nargs="+", choices=FORWARDS, help="default: eager, on a GPU graphs as well")
    add("--contexts", nargs="+", type=_count, metavar="N", help="tokens in the cache before")
    add("--windows", nargs="+", type=_count, metavar="N", help="rows of a step")
    add("--block-size", type=_count, default=32, metavar="N", help="rows a block (default: 32)")
    add(
        "--tokens-per-forward",
        nargs="+",
        type=_rate,
        default=RATES,
        metavar="X",
        help=f"to compute tokens/s from (default: {' '.join(map(str, RATES))})",
    )
    add("--seconds", type=_rate, metavar="S", help="begin nothing more after so many seconds")
    add("--json", action="store_true", help="print nothing but the line of JSON")
    add("--out", type=Path, metavar="FILE", help="also write the JSON, indented, to a file")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**20:
        raise argparse.ArgumentTypeError(f"must be an integer of 1 to 2**20 - 1, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def ways(args: argparse.Namespace, device: torch.device) -> list[How]:
    """Each way to compute that was asked for, or that suits the device."""
    gpu = device.type == "cuda"
    suits = DTYPE_NAMES if gpu else ("float32", "bfloat16") if native_bf16() else ("float32",)
    attentions = BACKENDS if gpu else ("sdpa",)
    forwards = (EAGER, GRAPHS) if gpu else (EAGER,)
    asked = (args.dtypes or suits, args.attentions or attentions, args.forwards or forwards)
    return [How(*each) for each in product(*asked)]


def shape_of(name: str, length: int) -> ModelConfig:
    """The network of that name, able to see so many tokens."""
    pair = (PAIRS | PUBLISHED_PAIRS).get(name)
    known = pair.d2f if pair else name
    shape = find_shape(known)
    if isinstance(shape, ModelConfig):
        return replace(shape, max_length=length)
    causal = PUBLISHED[known].decoder == "ar"
    return ModelConfig(**asdict(shape), max_length=length, causal=causal)


def network(args: argparse.Namespace, dtype: str, length: int) -> Transformer:
    """The network in one dtype, on the device.

    Raises:
        D2FError: it cannot be had, or is too large.
    """
    if not args.random:
        net = load_model(args.model, device=args.device, dtype=dtype, attention="sdpa").net
        if length > net.config.max_length:
            raise InvalidInput(
                f"--contexts and --windows reach {length} tokens, and the model's context is "
                f"{net.config.max_length}"
            )
        return net
    config = shape_of(args.model, length)
    config = tiny(config) if args.tiny else config
    need = config.memory(dtype, tokens=2 * length)
    require_memory(args.model, need, free_memory(args.device), args.device, dtype)
    return random_network(config, torch.device(args.device), dtype)


def measured(args: argparse.Namespace, grid: Grid, speed: float) -> Found:
    """Every way, as far as there is time; one that cannot be gone here is told, others go on."""
    found = Found()
    todo = ways(args, torch.device(args.device))
    bar = tqdm(total=len(todo) * len(grid.cells), desc="shape", unit="cell")
    for dtype in dict.fromkeys(how.dtype for how in todo):
        own = [how for how in todo if how.dtype == dtype]
        try:
            net = network(args, dtype, grid.length)
        except D2FError as error:
            found.refused += [how._asdict() | {"reason": str(error)} for how in own]
            continue
        for how in own:
            before = len(found.rows)
            try:
                for timing in timings(net, how, grid, speed):
                    found.rows.append(timing)
                    bar.update()
            except (D2FError, RuntimeError) as error:  # torch's compilers have dozens of kinds
                found.refused.append(how._asdict() | {"reason": one_line(error)})
            else:
                found.skipped += len(grid.cells) - (len(found.rows) - before)
            # Programs and their workspace know each other, and hold the cache.
            gc.collect()
        del net
        gc.collect()
    return found


def timings(net: Transformer, how: How, grid: Grid, speed: float) -> Iterator[Timing]:
    """One way's, as far as there is time.

    Raises:
        D2FError, RuntimeError: it cannot run here.
    """
    device = net.embed_tokens.weight.device
    net.attention = choose_backend(how.attention, device, DTYPES[how.dtype], net.config.head_dim)
    yield from grid.measure(net, how, speed)


def result_of(args: argparse.Namespace, found: Found, speed: float) -> dict[str, Any]:
    """Everything there is to say, in JSON values; docs/gpu.md explains the fields."""
    return {
        "suite": "shape",
        "format": FORMAT,
        "model": args.model,
        "weights": "random" if args.random else "loaded",
        "tiny": args.tiny,
        "block_size": args.block_size,
        "machine": machine(args.device),
        "versions": versions(),
        "copy_bytes_per_second": speed,
        "rows": [asdict(row) for row in found.rows],
        "refused": found.refused,
        "skipped": found.skipped,
        "caps": {"at_most": WORTH, "rows": caps(found.rows, args.block_size, WORTH)},
        "computed": tokens_per_second(found.rows, args.tokens_per_forward),
    }


def text_of(result: dict[str, Any]) -> str:
    """Tables for the terminal."""
    windows = sorted({row["window"] for row in result["rows"]})
    named = ("dtype", "attention", "forward", "context")
    lines: dict[tuple[str, ...], dict[int, str]] = {}
    for row in result["rows"]:
        key = tuple(str(row[name]) for name in named)
        lines.setdefault(key, {})[row["window"]] = f"{row['ms']:.2f}"
        floor = (row["dtype"], "-", "floor", str(row["context"]))
        lines.setdefault(floor, {})[row["window"]] = f"{row['floor_ms']:.2f}"
    head = (*named, *map(str, windows))
    body = [(*key, *(own.get(window, "") for window in windows)) for key, own in lines.items()]
    speed = result["copy_bytes_per_second"] / 1e9
    told = f"{result['model']}, {result['weights']} weights{', tiny' * result['tiny']}; "
    told += f"{result['machine']['device']}, memory copied at {speed:,.0f} GB/s. "
    parts = [told + "Milliseconds a step, by rows of its window:", table([head, *body])]
    parts += [
        f"Not measured: {' '.join(map(str, list(each.values())[:3]))}: {each['reason']}"
        for each in result["refused"]
    ]
    if result["skipped"]:
        parts.append(f"{result['skipped']} cells were not begun in time.")
    return "\n\n".join([*parts, *computed_text(result)])


def computed_text(result: dict[str, Any]) -> Iterator[str]:
    """What follows from the timings, marked as such."""
    rates = sorted({row["tokens_per_forward"] for row in result["computed"]})
    named = ("dtype", "attention", "forward", "context", "window")
    lines: dict[tuple[str, ...], dict[float, str]] = {}
    for row in result["computed"]:
        key = tuple(str(row[name]) for name in named)
        lines.setdefault(key, {})[row["tokens_per_forward"]] = f"{row['tokens_per_second']:,.0f}"
    body = [(*key, *(own.get(rate, "") for rate in rates)) for key, own in lines.items()]
    if body:
        yield "Computed, not measured: tokens/s at so many tokens a forward:"
        yield table([(*named, *map(str, rates)), *body])
    for row in result["caps"]["rows"]:
        yield (
            f"{row['dtype']} {row['attention']} {row['forward']} after {row['context']} tokens: "
            f"windows up to {row['widest']} rows cost at most {WORTH} times one block of "
            f"{result['block_size']}; max_active_blocks={row['max_active_blocks']} keeps within."
        )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Raises:
        D2FError: nothing of what was asked for can be measured here.
    """
    started, device = time.monotonic(), find_device(args.device)
    if args.tiny and not args.random:
        raise InvalidInput("--tiny needs --random: loaded weights have their own size")
    grid = Grid(
        contexts=args.contexts or (TINY_CONTEXTS if args.tiny else CONTEXTS),
        windows=args.windows or (TINY_WINDOWS if args.tiny else WINDOWS),
        block_size=args.block_size,
        until=started + (args.seconds or float("inf")),
    )
    speed = memory_bandwidth(str(device), TINY_COPY if args.tiny else None)
    found = measured(args, grid, speed)
    if not found.rows and found.refused:
        raise InvalidInput(found.refused[0]["reason"])
    return result_of(args, found, speed)


def main(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    check_output("--out", args.out)
    result = run(args)
    if args.out is not None:
        write_output("--out", args.out, to_json(result, indent=1))
    if not args.json:
        print(text_of(result))
    print(to_json(result))
    sys.stdout.flush()
    return 0
