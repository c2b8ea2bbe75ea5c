"""Models timed once on a machine, and run as was fastest; what is asked for goes before."""

import json
import logging
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import save_models

from app.page.reducer import machine
from d2f import D2FConfig, tuning
from d2f.bench.__main__ import main as bench
from d2f.bench.report import machine_line
from d2f.catalogue.pairs import PAIRS
from d2f.checkpoints.resolve import find_folder, folder_shape
from d2f.cli.program import calibrations
from d2f.decode import trace_header
from d2f.decode.common import how_it_runs
from d2f.nn import timing
from d2f.nn.timing import ROW, WINDOW, Tuned, Way, fastest, packings, time_ways
from d2f.run_options import RunOptions
from d2f.tuning import (
    PRECISION,
    Tuner,
    fingerprint,
    load_tuned,
    safe_dtypes,
    thread_counts,
    tune,
)

# One thread is best for a row, two for a window; bfloat16 is best of all.
WAYS = [
    Way("float32", "columns", 1, 1.0, 4.0),
    Way("float32", "columns", 2, 1.2, 3.0),
    Way("float32", "onednn", 1, 1.1, 5.0),
    Way("bfloat16", "onednn", 1, 0.5, 2.0),
    Way("bfloat16", "onednn", 2, 0.7, 1.5),
]
OPEN = RunOptions(dtype="auto")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return save_models(tmp_path_factory.mktemp("models"), tokenizer_folder)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The calls for timings, which are made up; a CPU that computes in bfloat16."""
    calls: list[tuple[Any, ...]] = []

    def made_up(*asked: Any) -> list[Way]:
        calls.append(asked)
        return WAYS

    monkeypatch.setattr(tuning, "time_ways", made_up)
    monkeypatch.setattr(tuning, "native_bf16", lambda: True)
    monkeypatch.setattr("d2f.machine.native_bf16", lambda: True)
    return calls


def measured(folder: Path, of: Path, bfloat16: float) -> Path:
    """A file that tells the accuracy of a model in both dtypes, 90 % in float32."""
    accuracy = {"float32": 0.9, "bfloat16": bfloat16}
    own = {"fingerprint": fingerprint(of), "accuracy": accuracy}
    path = folder / "precision.json"
    path.write_text(json.dumps({"models": {"some": own}}))
    return path


def ways_kept(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*.json")
    found: list[dict[str, Any]] = json.loads(path.read_text())["ways"]
    return found


def test_each_model_gets_what_is_fastest_for_its_own_forwards(
    models: Path, tmp_path: Path, timed: list[Any]
) -> None:
    tuner = Tuner(tmp_path)
    ar, reason = tune(models / "mini-ar", OPEN, tuner)
    assert (ar.dtype, ar.packing, ar.threads) == ("float32", "columns", 1)
    assert reason is not None
    assert reason.reason == "1.0 ms a row in float32 with 1 thread, 1.2 with 2"
    d2f, reason = tune(models / "mini-d2f", OPEN, tuner)
    assert (d2f.dtype, d2f.packing, d2f.threads) == ("float32", "columns", 2)
    assert reason is not None and reason.chosen == WAYS[1]


@pytest.mark.parametrize(("bfloat16", "chosen"), [(0.89, "bfloat16"), (0.88, "float32")])
def test_bfloat16_is_chosen_only_where_it_costs_at_most_a_point(
    models: Path,
    tmp_path: Path,
    timed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    bfloat16: float,
    chosen: str,
) -> None:
    path = measured(tmp_path, models / "mini-d2f", bfloat16)
    monkeypatch.setattr(tuning, "PRECISION", path)
    tuner = Tuner(tmp_path / "cache")
    assert tune(models / "mini-d2f", OPEN, tuner)[0].dtype == chosen
    # Of other weights nothing is known, nor of those an adapter changes.
    assert tune(models / "mini-ar", OPEN, tuner)[0].dtype == "float32"
    (adapter := tmp_path / "lora").mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert tune(models / "mini-d2f", OPEN, tuner, adapter)[0].dtype == "float32"
    (tmp_path / "precision.json").unlink()
    assert tune(models / "mini-d2f", OPEN, tuner)[0].dtype == "float32"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"dtype": "bfloat16"}, ("bfloat16", "onednn", 2)),
        ({"dtype": "float32"}, ("float32", "columns", 2)),
        ({"threads": 1}, ("float32", "columns", 1)),
        ({"threads": 1, "dtype": "bfloat16"}, ("bfloat16", "onednn", 1)),
        ({"packing": "rows"}, ("float32", "rows", 2)),
        # Compiling arranges the weights itself.
        ({"compile": True}, ("float32", None, 2)),
        # What was not timed is taken as it is asked for, with what is usual for the rest.
        ({"threads": 7}, ("bfloat16", None, 7)),
        ({"dtype": "float16"}, ("float16", None, None)),
        ({"quantize": "int8"}, ("bfloat16", None, None)),
        ({"device": "cuda"}, ("bfloat16", None, None)),
    ],
)
def test_what_is_asked_for_goes_before_what_was_timed(
    models: Path,
    tmp_path: Path,
    timed: list[Any],
    asked: dict[str, Any],
    found: tuple[str | None, ...],
) -> None:
    options, _ = tune(models / "mini-d2f", RunOptions(**{"dtype": "auto"} | asked), Tuner(tmp_path))
    assert (options.dtype, options.packing, options.threads) == found
    gaps: dict[str, Any] = {"dtype": "auto", "packing": None, "threads": None}
    assert replace(options, **gaps) == replace(RunOptions(**asked), **gaps)


def test_a_model_is_timed_once_a_machine_torch_and_content(
    models: Path, tmp_path: Path, timed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tuner = models / "mini-d2f", Tuner(tmp_path / "new" / "cache")
    first = tune(folder, OPEN, tuner)
    assert tune(folder, OPEN, tuner) == first
    assert len(timed) == 1
    assert ways_kept(tmp_path / "new" / "cache") == [asdict(way) for way in WAYS]
    tune(folder, OPEN, replace(tuner, again=True))
    assert len(timed) == 2
    tune(models / "mini-ar", OPEN, tuner)
    assert len(timed) == 3
    for name, other in (("cores", lambda: 64), ("cpu_fields", lambda: {"model name": "Other"})):
        with monkeypatch.context() as patch:
            patch.setattr(tuning, name, other)
            before = len(timed)
            tune(folder, OPEN, tuner)
            tune(folder, OPEN, tuner)
            assert len(timed) == before + 1
    monkeypatch.setattr(torch, "__version__", "99.0")
    tune(folder, OPEN, tuner)
    assert len(timed) == 6


@pytest.mark.parametrize("damage", ["", "[]", '{"ways": [{"dtype": "float32"}]}', "\x00"])
def test_damaged_timings_are_told_and_taken_anew(
    models: Path, tmp_path: Path, timed: list[Any], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first = tune(models / "mini-d2f", OPEN, Tuner(tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_text(damage)
    assert tune(models / "mini-d2f", OPEN, Tuner(tmp_path)) == first
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    assert ways_kept(tmp_path) == [asdict(way) for way in WAYS]


def test_a_cache_that_cannot_be_written_is_told_and_does_not_matter(
    models: Path, tmp_path: Path, timed: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    options, _ = tune(models / "mini-d2f", OPEN, Tuner(tmp_path / "file" / "cache"))
    assert options.threads == 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "timings are not kept, so the next start takes them again" in record.message


def test_nothing_is_timed_without_a_place_for_timings_nor_for_large_models(
    models: Path, tmp_path: Path, timed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = RunOptions(dtype="bfloat16")  # this CPU computes in it itself
    assert tune(models / "mini-d2f", OPEN, Tuner()) == (usual, None)
    assert tune("mini-d2f", OPEN, Tuner()) == (RunOptions(), None)
    monkeypatch.setattr(tuning, "MOST_PARAMETERS", 1000)
    monkeypatch.setattr(Path, "read_bytes", None)  # of which not one byte is read for it
    monkeypatch.setattr(tuning, "read_json", lambda path: json.loads(path.read_text()))
    assert tune(models / "mini-d2f", OPEN, Tuner(tmp_path)) == (usual, None)
    assert timed == []


def test_a_tuned_model_runs_as_chosen_and_says_why(
    models: Path, tmp_path: Path, timed: list[Any]
) -> None:
    model = load_tuned(models / "mini-d2f", OPEN, Tuner(tmp_path))
    assert (model.dtype, model.net.packing, model.threads) == ("float32", "columns", 2)
    told = how_it_runs(model, D2FConfig())
    assert told["timed"] == "3.0 ms a window of 32 rows in float32 with 2 threads, 4.0 with 1"
    header = trace_header(model, [5], D2FConfig())
    assert header.versions.items() >= told.items()
    assert machine(header).endswith(
        "mini-d2f computed with 2 threads, the fastest here: 3.0 ms a window of 32 rows in "
        "float32 with 2 threads, 4.0 with 1."
    )
    assert "computed with" not in machine(replace(header, versions={"torch": "2"}))
    assert "computed with" not in machine(replace(header, host="elsewhere"))


def test_the_benchmark_tells_what_was_chosen_for_each_lane_and_by_what(
    models: Path,
    tmp_path: Path,
    timed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("D2F_CALIBRATE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lanes = [f"--model={name}={models / f'mini-{name}'}" for name in ("d2f", "ar")]
    small = ["--problems=1", "--tasks=gsm-mini", "--set=d2f.max_new_tokens=8"]
    args = ["--decoders", "d2f", "ar", *lanes, *small, "--set=ar.max_new_tokens=8"]
    assert bench([*args, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [run["threads"] for run in result["runs"].values()] == ["2", "1"]
    assert result["timed"]["ar"] == json.loads(
        json.dumps(asdict(Tuned(tuple(WAYS[:3]), WAYS[0], ROW)))
    )
    line = machine_line(result)
    assert "torch threads" not in line
    assert "timed 1.0 ms a row in float32 with 1 thread, 1.2 with 2" in line
    assert len(list((tmp_path / "d2f" / "calibrations").iterdir())) == 2
    assert bench([*args, "--json", "--recalibrate", "--threads", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [run["threads"] for run in result["runs"].values()] == ["1", "1"]
    assert len(timed) == 4


def test_timings_are_kept_in_the_users_cache_unless_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert calibrations() is None  # as tests are run
    monkeypatch.delenv("D2F_CALIBRATE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibrations() == tmp_path / "d2f" / "calibrations"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert calibrations() == tmp_path / "home" / ".cache" / "d2f" / "calibrations"


def test_alike_ways_are_told_apart_by_their_threads() -> None:
    assert fastest(WAYS, ROW) == WAYS[3]
    assert fastest(WAYS, WINDOW) == WAYS[4]
    near = [Way("float32", "columns", n, 1 - n / 200, 1 - n / 10) for n in (4, 2, 1)]
    assert fastest(near, ROW).threads == 1  # a tenth more than the least is alike
    assert fastest(near, WINDOW).threads == 4


def test_every_way_is_timed(models: Path) -> None:
    config = folder_shape(models / "mini-d2f")
    ways = time_ways(config, ["float32", "bfloat16"], [1, 2], 0.0)
    kinds = [(kind, p) for kind in ("float32", "bfloat16") for p in packings(getattr(torch, kind))]
    assert [(way.dtype, way.packing, way.threads) for way in ways] == [
        (*kind, threads) for kind in kinds for threads in (1, 2)
    ]
    assert all(0 < way.row < 1000 and 0 < way.window < 1000 for way in ways)


def test_a_slow_number_of_threads_is_not_chosen(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time stands still but where two threads or a packing compute."""
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    forward = timing.Transformer.forward

    def slow(net: Any, *args: Any) -> torch.Tensor:
        slower = torch.get_num_threads() == 2 or net.packing == "onednn"
        clock[0] += 0.002 if slower else 0.001
        out: torch.Tensor = forward(net, *args)
        return out

    monkeypatch.setattr(timing.Transformer, "forward", slow)
    ways = time_ways(folder_shape(models / "mini-ar"), ["float32"], [1, 2], 0.0)
    best = fastest(ways, ROW)
    assert (best.packing, best.threads) == ("columns", 1)
    assert best.row == pytest.approx(1)


def test_contexts_shorter_than_a_window_are_timed_as_they_are() -> None:
    config = replace(folder_shape(find_folder("mini-ar")), max_length=16)
    assert len(time_ways(config, ["float32"], [1], 0.0)) == len(packings(torch.float32))


def test_numbers_of_threads_are_powers_of_two_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, counts in [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])]:
        monkeypatch.setattr(tuning, "cores", lambda cores=cores: cores)
        assert thread_counts() == counts


@pytest.mark.parametrize("lane", ["d2f", "ar"])
def test_the_embedded_models_accuracy_was_measured_as_they_are_now(lane: str) -> None:
    """After training: ``python -m d2f.bench.precision``."""
    name = PAIRS["mini"].lanes[lane][0]
    own = json.loads(PRECISION.read_text())["models"][name]
    assert own["fingerprint"] == fingerprint(find_folder(name))
    safe = own["accuracy"]["bfloat16"] >= own["accuracy"]["float32"] - 0.01
    assert ("bfloat16" in safe_dtypes(fingerprint(find_folder(name)))) == safe


def test_a_weight_more_is_another_model(models: Path, tmp_path: Path) -> None:
    digests = {fingerprint(models / name) for name in ("mini-ar", "mini-d2f")}
    assert len(digests) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)
