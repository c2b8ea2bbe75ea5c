"""Each model at its own best on this machine, where nothing else is asked for.

At a model's first start its forwards are timed, in under a second (:mod:`d2f.nn.timing`): one row
for an autoregressive model, a window for a diffusion model. What was found is kept in the user's
cache, by machine, torch and what the model's folder holds. A dtype or a number of threads that is
asked for goes before all that. bfloat16 is chosen only for models whose accuracy in it was measured
(:mod:`d2f.bench.precision`) and stays within a point.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from d2f.catalogue.pairs import embedded_models
from d2f.checkpoints.config_json import NOTHING_GIVEN, model_config
from d2f.checkpoints.load import load_model
from d2f.checkpoints.plan import together
from d2f.checkpoints.resolve import published_model, resolve
from d2f.errors import LoadError
from d2f.machine import cpu_fields, default_dtype, native_bf16
from d2f.model import Model
from d2f.model_files import Fields, read_fields, read_json, reading
from d2f.nn.timing import ROW, WINDOW, Tuned, Way, fastest, time_ways
from d2f.places import ASSETS
from d2f.run_options import RunOptions
from d2f.shape import Diffusion, ModelConfig
from d2f.strict_json import to_json

log = logging.getLogger(__name__)

PRECISION = ASSETS / "bench" / "precision" / "mini.json"
# Those that are timed, where the CPU computes them itself.
DTYPES = ("float32", "bfloat16")
# What bfloat16 may cost of the share of problems solved.
TOLERANCE = 0.01 + 1e-9  # a point, and what rounding adds
# Larger models take longer than a second to be timed.
MOST_PARAMETERS = 50_000_000


class _Way(Fields):
    dtype: str
    packing: str
    threads: int
    row: float
    window: float


class _Kept(Fields):
    """What the cache holds of a model on a machine."""

    ways: list[_Way]


class _Measured(Fields):
    fingerprint: str
    accuracy: dict[str, float]


class _Precision(Fields):
    """What was measured of models by the digest of their folders."""

    models: dict[str, _Measured]


@dataclass(frozen=True)
class Tuner:
    """Where timings are kept; None: no model is timed. ``again``: time anew what is there."""

    folder: Path | None = None
    again: bool = False

    def ways(self, model: str, config: ModelConfig) -> list[Way]:
        """The timed ways to run a model here; ``model`` is its folder's :func:`fingerprint`."""
        assert self.folder is not None
        here = this_machine()
        key = hashlib.sha256(to_json([here, model]).encode()).hexdigest()[:16]
        path = self.folder / f"{key}.json"
        if path.is_file() and not self.again:
            try:
                kept = read_fields(_Kept, read_json(path), str(path)).ways
                return [Way(**each.model_dump()) for each in kept]
            except LoadError as error:
                log.warning("timed anew: %s", error)
        dtypes = DTYPES if native_bf16() else DTYPES[:1]
        ways = time_ways(config, dtypes, thread_counts())
        _keep(path, to_json({"machine": here, "model": model, "ways": [asdict(w) for w in ways]}))
        return ways


def _keep(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        log.warning("timings are not kept, so the next start takes them again: %s", error)


def this_machine() -> dict[str, str | int]:
    """What timings depend on beside the model."""
    cpu = cpu_fields()
    return {
        "cpu": cpu.get("model name", ""),
        "features": cpu.get("flags", "") or cpu.get("Features", ""),
        "cores": cores(),
        "torch": torch.__version__,
    }


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_counts() -> list[int]:
    """1, 2, 4, ... and as many as there are cores."""
    most = cores()
    return sorted({*(1 << power for power in range(most.bit_length())), most})


def fingerprint(folder: Path) -> str:
    """A digest of a model's configuration and weights; ``LoadError`` if they cannot be read."""
    digest = hashlib.sha256()
    for path in sorted((folder / "config.json", *folder.glob("*.safetensors"))):
        with reading(path):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def safe_dtypes(model: str) -> Sequence[str]:
    """float32, and bfloat16 where it was measured to cost the model of this fingerprint nothing."""
    if not PRECISION.is_file():
        return DTYPES[:1]
    found = read_fields(_Precision, read_json(PRECISION), str(PRECISION)).models.values()
    safe = any(
        each.fingerprint == model
        and each.accuracy["bfloat16"] >= each.accuracy["float32"] - TOLERANCE
        for each in found
    )
    return DTYPES if safe else DTYPES[:1]


def tune(
    name: str | Path,
    options: RunOptions,
    tuner: Tuner,
    adapter: str | Path | None = None,
    diffusion: Diffusion | None = None,
) -> tuple[RunOptions, Tuned | None]:
    """Options without gaps, and the timings they were chosen by, if they were."""
    asked = None if options.dtype == "auto" else options.dtype
    plain = replace(options, dtype=asked or usual_dtype(name, options.device))
    if options.quantize or not options.device.startswith("cpu") or published_model(name):
        return plain, None
    source = resolve(name, adapter)
    folder, given = source.folder, together(source, diffusion or NOTHING_GIVEN)
    config = model_config(read_json(folder / "config.json"), given)
    if tuner.folder is None or config.parameters > MOST_PARAMETERS:
        return plain, None
    # Read once: it is all of the weights.
    digest = fingerprint(folder)
    ways = tuner.ways(digest, config)
    safe = [asked] if asked else DTYPES[:1] if adapter else safe_dtypes(digest)
    open_ways = [way for way in ways if way.dtype in safe]
    fitting = [way for way in open_ways if options.threads in (None, way.threads)]
    if not fitting:
        return plain, None
    best = fastest(fitting, rows_of(config))
    chosen = replace(options, dtype=best.dtype, threads=best.threads)
    if not options.compile and options.packing is None:
        chosen = replace(chosen, packing=best.packing)
    # Nothing was chosen among threads that were asked for.
    own = options.threads is None
    return chosen, Tuned(tuple(fitting), best, rows_of(config)) if own else None


def usual_dtype(name: str | Path, device: str) -> str:
    """A model's dtype where nothing is timed."""
    return default_dtype(device, embedded=name in embedded_models())


def rows_of(config: ModelConfig) -> int:
    """What a model's forwards are like: of one row, or of a window."""
    return ROW if config.causal else WINDOW


def load_tuned(
    name: str | Path,
    options: RunOptions,
    tuner: Tuner,
    *,
    adapter: str | Path | None = None,
    diffusion: Diffusion | None = None,
) -> Model:
    """:func:`d2f.load_model`'s model, run as is fastest here where the options leave it open."""
    chosen, tuned = tune(name, options, tuner, adapter, diffusion)
    model = load_model(name, adapter=adapter, diffusion=diffusion, **asdict(chosen))
    return replace(model, tuned=tuned)
