"""What a GPU must prove before its speed means anything: each proof a function to JSON values.

Small models, so that each takes seconds. Everything here runs on a CPU as well, where it proves
that the proofs themselves work; what only CUDA can tell is left out there. Prints nothing.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, product
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any, NamedTuple

import torch

from d2f.bench.shapes import random_network, tiny
from d2f.catalogue.pairs import EMBEDDED
from d2f.catalogue.published import LLADA
from d2f.checkpoints.load import load_model
from d2f.checkpoints.plan import DTYPES
from d2f.checkpoints.save import save_model
from d2f.config import ARConfig, D2FConfig, DecodeConfig, VanillaConfig
from d2f.decode import preparing, stream
from d2f.errors import InvalidInput
from d2f.events import StepEvent
from d2f.machine import machine, memory_bandwidth, versions
from d2f.model import Model
from d2f.nn.attention import BACKENDS, attend, choose_backend, make_fixed_sight, make_sight
from d2f.nn.compiled import Fixed
from d2f.shape import ModelConfig

Told = dict[str, Any]
QUESTIONS = ("Solve 3x + 4 = 19.", "What is 17 + 25?")
TOKENS = 64
# Largest deviations from float32 that rounding explains, of outputs of about 1.
CLOSE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
# How far float32's confidences may be apart: a row that sees one key too few is farther off.
CONFIDENT = 1e-4
# Rows, heads, key/value heads, size of a head, keys, rows a block.
CASES = ((96, 32, 32, 128, 700, 32), (96, 32, 8, 128, 1000, 32), (1, 28, 4, 128, 333, 1))
TINY_CASES = ((12, 4, 2, 16, 40, 4), (1, 4, 2, 16, 33, 1))


@dataclass(frozen=True)
class Place:
    """Where the proofs are made; ``tiny`` at the least size, to try them themselves."""

    device: torch.device
    tiny: bool

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def attentions(self) -> list[str]:
        """Backends that need no compiling; flex has a proof of its own."""
        return [name for name in BACKENDS if name != "flex"]


class Run(NamedTuple):
    """A kind of decoding with its embedded model and settings."""

    model: str
    config: DecodeConfig


D2F = D2FConfig(max_new_tokens=TOKENS, block_size=8, tau_conf=0.9)
RUNS = {
    "d2f": Run("mini-d2f", D2F),
    "ar": Run("mini-ar", ARConfig(max_new_tokens=TOKENS)),
    "vanilla": Run("mini-dllm", VanillaConfig(max_new_tokens=16, block_size=8)),
}


@cache
def loaded(name: str, place: Place, dtype: str, attention: str) -> Model:
    """An embedded model, eager."""
    return load_model(name, device=place.device, dtype=dtype, attention=attention)


def asked(model: Model, question: str = QUESTIONS[0]) -> list[int]:
    """A question's prompt."""
    return model.tokenizer.encode_chat([{"role": "user", "content": question}])


def decoded(model: Model, config: DecodeConfig, question: str = QUESTIONS[0]) -> list[StepEvent]:
    """A run's steps."""
    return list(stream(model, asked(model, question), config))


def compared(one: Sequence[StepEvent], other: Sequence[StepEvent], dtype: str) -> Told:
    """Whether two runs decide alike, step by step, and how far their confidences are apart.

    ``ok`` asks for that of float32 alone: half precision rounds otherwise where a window is padded.
    """
    equal = [_decided(event) for event in one] == [_decided(event) for event in other]
    told: Told = {"dtype": dtype, "equal": equal, "deviation": None, "ok": dtype != "float32"}
    if equal:
        pairs = zip(_confidences(one), _confidences(other), strict=True)
        told["deviation"] = max(abs(ours - theirs) for ours, theirs in pairs)
        told["ok"] |= told["deviation"] <= CONFIDENT
    return told


def _decided(event: StepEvent) -> tuple[object, ...]:
    return event.window, [(each.position, each.token_id) for each in event.commits]


def _confidences(events: Sequence[StepEvent]) -> list[float]:
    return [each.confidence for event in events for each in event.commits]


def where(place: Place) -> Told:
    """The machine, and the speed of its memory."""
    return {
        "machine": machine(str(place.device)),
        "versions": versions(),
        "copy_bytes_per_second": memory_bandwidth(str(place.device), 2**20 if place.tiny else None),
    }


def saved_network(place: Place, folder: Path) -> Path:
    """A network of LLaDA's width and two layers, written with an embedded model's tokenizer."""
    shape = replace(LLADA, num_layers=2, vocab_size=32768)
    config = ModelConfig(**vars(shape), max_length=256)
    config = replace(tiny(config), vocab_size=2048) if place.tiny else config
    config = replace(config, mask_id=load_model("mini-d2f").config.mask_id)
    for path in (EMBEDDED / "mini-d2f").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            copyfile(path, folder / path.name)
    save_model(random_network(config, place.device, "float16"), folder, [0])
    return folder


def loading(place: Place) -> Told:
    """Weights read onto the device are those read on the CPU; at its peak that takes no more."""
    with TemporaryDirectory() as name:
        folder = saved_network(place, Path(name))
        home = load_model(folder, dtype="bfloat16")
        started = time.perf_counter()
        with peak(place) as most:
            there = load_model(folder, device=place.device, dtype="bfloat16")
        seconds = time.perf_counter() - started
    pairs = zip(home.net.parameters(), there.net.parameters(), strict=True)
    differing = sum(not one.equal(other.cpu()) for one, other in pairs)
    size = sum(weight.nbytes for weight in there.net.parameters())
    # A tensor on its way, and the allocator's blocks of 2 MB.
    fits = most[0] <= 1.02 * size + 2**26 if place.cuda else True
    told = {"ok": differing == 0 and fits, "differing": differing, "weight_bytes": size}
    return told | {"peak_bytes": most[0] if place.cuda else None, "seconds": seconds}


@contextmanager
def peak(place: Place) -> Iterator[list[int]]:
    """The most memory of the device that was taken within, on top of what was; 0 on a CPU."""
    most = [0]
    if not place.cuda:
        yield most
        return
    torch.cuda.synchronize(place.device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(place.device)
    before = torch.cuda.memory_allocated(place.device)
    yield most
    most[0] = torch.cuda.max_memory_allocated(place.device) - before


def attention(place: Place) -> Told:
    """Backends and dtypes against float32 on the CPU, eager and of fixed shape."""
    return exactness(place, place.attentions, tuple(CLOSE))


def exactness(place: Place, backends: Sequence[str], dtypes: Sequence[str]) -> Told:
    """Deviations of these backends in these dtypes, and whether rounding explains them."""
    rows = []
    for backend, dtype in product(backends, dtypes):
        row: Told = {"attention": backend, "dtype": dtype}
        try:
            deviation = max(deviations(place, backend, dtype))
            rows.append(row | {"deviation": deviation, "ok": deviation <= CLOSE[dtype]})
        except InvalidInput as error:  # it is not for this device, or not installed
            rows.append(row | {"refused": str(error)})
    return {"ok": all(row.get("ok", True) for row in rows), "rows": rows}


def flex(place: Place) -> Told:
    """The same of flex attention, which compiles itself, eager and within graphs."""
    told = exactness(place, ["flex"], ("float32", "bfloat16"))
    row = captured(place, "d2f", "flex", "float32")
    return told | {"ok": told["ok"] and row["ok"], "graphs": row}


def deviations(place: Place, backend: str, dtype: str) -> Iterator[float]:
    """The largest difference of each case."""
    for rows, heads, kv_heads, dim, keys, size in TINY_CASES if place.tiny else CASES:
        choose_backend(backend, place.device, DTYPES[dtype], dim)
        generator = torch.Generator().manual_seed(0)
        shapes = (1, rows, heads, dim), (1, kv_heads, keys, dim), (1, kv_heads, keys, dim)
        q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
        start = keys - rows
        ends = torch.tensor([start + (row // size + 1) * size for row in range(rows)])
        groups = heads // kv_heads
        cpu = torch.device("cpu")
        true = attend(q, k, v, make_sight("sdpa", ends, (1, rows), keys, groups, cpu))
        q, k, v = (each.to(place.device, DTYPES[dtype]) for each in (q, k, v))
        eager = make_sight(backend, ends, (1, rows), keys, groups, place.device, DTYPES[dtype])
        on_device = ends.to(place.device)
        fixed = make_fixed_sight(backend, on_device, size, keys, groups, DTYPES[dtype])
        for sight in (eager, fixed):
            yield float((attend(q, k, v, sight).float().cpu() - true).abs().max())


def graphs(place: Place) -> Told:
    """Steps captured as graphs decide what eager ones do; what capturing them costs."""
    rows = [
        {"decoder": name, "attention": each, **captured(place, name, each, dtype)}
        for each, dtype in float_attentions(place)
        for name in RUNS
    ]
    return {"ok": all(row["ok"] for row in rows), "rows": rows}


def float_attentions(place: Place) -> Iterator[tuple[str, str]]:
    """Backends that run here, each in the widest dtype it computes."""
    for backend in place.attentions:
        for dtype in ("float32", "bfloat16"):
            try:
                choose_backend(backend, place.device, DTYPES[dtype], head_dim(RUNS["d2f"].model))
            except InvalidInput:
                continue
            yield backend, dtype
            break


def head_dim(name: str) -> int:
    """Of an embedded model."""
    return load_model(name).config.head_dim


def captured(place: Place, name: str, attention: str, dtype: str) -> Told:
    """One decoder's run by graphs against its eager one, and what its graphs cost."""
    run = RUNS[name]
    eager = loaded(run.model, place, dtype, attention)
    model, before, started = by_graphs(eager, place), free(place), time.perf_counter()
    made = [total for _, total in preparing(model, len(asked(model)), run.config)]
    seconds, taken = time.perf_counter() - started, before - free(place)
    told = compared(decoded(model, run.config), decoded(eager, run.config), dtype)
    return told | {"programs": len(made), "seconds": seconds, "bytes": taken}


def by_graphs(model: Model, place: Place) -> Model:
    """The model decoding by graphs, or on a CPU at their fixed shapes."""
    return model.compiled() if place.cuda else replace(model, fixed=Fixed(model.net))


def free(place: Place) -> int:
    """Free bytes of the GPU."""
    if not place.cuda:
        return 0
    torch.cuda.synchronize(place.device)
    return torch.cuda.mem_get_info(place.device)[0]


def blocks(place: Place) -> Told:
    """Block sizes in turn, each decided as eager steps do, and then the first once more."""
    rows = []
    for backend, dtype in float_attentions(place):
        eager = loaded(RUNS["d2f"].model, place, dtype, backend)
        model = by_graphs(eager, place)
        for size in (8, 4, 6, 16, 8):
            config = replace(D2F, block_size=size)
            row = compared(decoded(model, config), decoded(eager, config), dtype)
            rows.append({"attention": backend, "block_size": size} | row)
    return {"ok": all(row["ok"] for row in rows), "rows": rows}


def threads(place: Place) -> Told:
    """Two runs at once, each in its thread, capturing as they go, decide as each does alone."""
    eager = loaded(RUNS["d2f"].model, place, "float32", "sdpa")
    alone = [decoded(eager, D2F, each) for each in QUESTIONS]
    model, start = by_graphs(eager, place), Barrier(len(QUESTIONS))

    def run(question: str) -> list[StepEvent]:
        start.wait()
        return [e for _ in range(3) for e in decoded(model, D2F, question)]

    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(run, QUESTIONS))
    rows = [compared(runs, once * 3, "float32") for runs, once in zip(together, alone, strict=True)]
    return {"ok": all(row["ok"] for row in rows), "rows": rows}


def waits(place: Place) -> Told:
    """How often a step waits for the GPU: once, where its decisions are read."""
    rows = []
    for name in ("d2f", "ar"):
        run = RUNS[name]
        eager = loaded(run.model, place, "bfloat16", "sdpa")
        for model in (eager, eager.compiled()):
            for _ in preparing(model, len(asked(model)), run.config):
                pass
            counts = waits_of(stream(model, asked(model), run.config))
            forward = "eager" if model.fixed is None else "graphs"
            rows.append({"decoder": name, "forward": forward, "waits": counts})
    return {"ok": all(set(row["waits"]) == {"1"} for row in rows), "rows": rows}


def waits_of(events: Iterator[StepEvent]) -> dict[str, int]:
    """How many steps behind the first waited so and so often."""
    next(events)
    counts = []
    # Steps wait in one and the same line, of which Python tells once unless it is told otherwise.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in events:
                told = [w for w in caught if "synchronizing CUDA operation" in str(w.message)]
                counts.append(len(told))
                caught.clear()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {str(count): len(list(own)) for count, own in groupby(sorted(counts))}
