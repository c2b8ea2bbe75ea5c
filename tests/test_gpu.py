"""What ``.ci/gpu`` runs, tried on a CPU at tiny size: that it sees faults, and keeps its time."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from d2f.bench import gpu, proofs
from d2f.bench.gpu import PARTS, Part, main
from d2f.bench.proofs import Place
from d2f.catalogue.pairs import EMBEDDED
from d2f.events import StepEvent
from d2f.nn.compiled import Workspace

ROOT = Path(__file__).parents[1]
CPU = Place(torch.device("cpu"), tiny=True)
ON_CUDA = [part.name for part in PARTS if part.cuda]

pytestmark = pytest.mark.skipif(
    not (EMBEDDED / "mini-d2f").is_dir(), reason="the embedded models are not trained yet"
)


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models that a test spoils are no other's."""
    monkeypatch.setattr("d2f.bench.shapes.SECONDS", 0.0)
    yield
    proofs.loaded.cache_clear()


def lines_of(out: str) -> dict[str, dict[str, Any]]:
    return {line["part"]: line for line in map(json.loads, out.splitlines())}


@pytest.mark.slow
def test_every_part_is_one_line_of_json_and_the_file_holds_them_all(tmp_path: Path) -> None:
    out = tmp_path / "here.json"
    done = subprocess.run(
        [ROOT / ".ci" / "gpu", "--tiny", "--device", "cpu", "--out", out],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    told = lines_of(done.stdout)
    assert list(told) == [part.name for part in PARTS]
    assert {name for name, line in told.items() if "skipped" in line} == set(ON_CUDA)
    assert all(line.get("ok", True) for line in told.values())
    assert json.loads(out.read_text()) == {"format": 1, "parts": list(told.values())}
    assert told["loading"]["differing"] == 0 and told["loading"]["peak_bytes"] is None
    attended = [row for row in told["attention"]["rows"] if "deviation" in row]
    assert [row["dtype"] for row in attended] == ["float32", "float16", "bfloat16"]
    captured = told["graphs"]["rows"]
    assert [(row["decoder"], row["equal"]) for row in captured] == [
        *(("d2f", True), ("ar", True), ("vanilla", True))
    ]
    # Vanilla diffusion has no cache, and so no program.
    assert [row["programs"] > 0 for row in captured] == [True, True, False]
    assert [row["block_size"] for row in told["blocks"]["rows"]] == [8, 4, 6, 16, 8]
    assert all(row["deviation"] <= 1e-4 for row in captured + told["blocks"]["rows"])
    assert [row["equal"] for row in told["threads"]["rows"]] == [True, True]
    assert {row["forward"] for row in told["shape llada"]["result"]["rows"]} == {"eager", "graphs"}


def test_graphs_that_read_too_few_keys_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2f.nn.compiled.extent", lambda end, capacity: 16)
    told = proofs.graphs(CPU)
    assert told["ok"] is False
    assert [row["ok"] for row in told["rows"]] == [False, False, True]
    assert proofs.threads(CPU)["ok"] is False


def test_a_size_of_blocks_that_goes_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Workspace.forward

    def wrong(space: Any, ids: Any, start: int, ends: Any, size: int, reach: Any = None) -> None:
        right(space, ids, start, ends - int(size == 6), size, reach)

    monkeypatch.setattr(Workspace, "forward", wrong)
    told = proofs.blocks(CPU)
    assert told["ok"] is False
    assert [row["block_size"] for row in told["rows"] if not row["ok"]] == [6]


def test_a_row_that_sees_one_key_too_few_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proofs.make_fixed_sight
    monkeypatch.setattr(
        proofs, "make_fixed_sight", lambda backend, ends, *rest: right(backend, ends - 1, *rest)
    )
    told = proofs.attention(CPU)
    assert told["ok"] is False
    assert [row["ok"] for row in told["rows"] if "ok" in row] == [False, False, False]


def test_a_weight_that_is_read_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proofs.load_model

    def wrong(name: Any, **options: Any) -> Any:
        model = right(name, **options)
        if "device" in options:
            model.net.norm.weight[3] += 1
        return model

    monkeypatch.setattr(proofs, "load_model", wrong)
    told = proofs.loading(CPU)
    assert (told["ok"], told["differing"]) == (False, 1)


def test_waits_are_counted_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr("torch.cuda.set_sync_debug_mode", modes.append)

    def events() -> Iterator[StepEvent]:
        for step, count in enumerate((5, 1, 1, 2, 1, 0)):
            for _ in range(count):
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
            yield StepEvent(step, 0.0, (0, 1), ())

    with pytest.warns(UserWarning):  # those of the first step, which is not counted
        assert proofs.waits_of(events()) == {"0": 1, "1": 3, "2": 1}
    assert modes == ["warn", "default"]


def test_what_cannot_end_in_time_is_not_begun(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--device", "cpu", "--seconds", "20.5", "--parts", "where", "flex"]) == 0
    told = lines_of(capsys.readouterr().out)
    assert "machine" in told["where"] and told["flex"]["skipped"] == "needs a CUDA GPU"
    line = gpu.line_of(Part("slow", lambda place, left: 1 / 0, 60), CPU, left=20.4)
    assert line == {"part": "slow", "skipped": "needs 60 s, and 20 are left"}


def test_a_part_that_fails_is_told_and_stops_no_other(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    parts = (
        Part("broken", lambda place, left: {}[1], 0),
        Part("wrong", lambda place, left: {"ok": False}, 0),
        Part("fine", lambda place, left: {"ok": True, "left": left > 0}, 0),
    )
    monkeypatch.setattr(gpu, "PARTS", parts)
    assert main(["--tiny", "--device", "cpu"]) == 1
    told = lines_of(capsys.readouterr().out)
    assert told["broken"]["ok"] is False and told["broken"]["error"] == "KeyError: 1"
    assert "KeyError: 1" in caplog.text
    assert told["fine"]["left"] is True
    monkeypatch.setattr(gpu, "PARTS", parts[2:])
    assert main(["--tiny", "--device", "cpu"]) == 0


def test_a_part_that_hangs_is_ended(tmp_path: Path) -> None:
    code = (
        "import time; from d2f.bench import gpu; gpu.GRACE = 0.2;"
        "gpu.PARTS = (gpu.Part('hangs', lambda place, left: time.sleep(60), 0),);"
        "gpu.main(['--device', 'cpu', '--seconds', '0.2'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"part": "all", "ok": False, "error": "hangs after 0 parts"}


def test_the_whole_is_over_in_less_than_nine_minutes() -> None:
    assert gpu.SECONDS + gpu.GRACE < 9 * 60
    assert all(part.seconds < gpu.SECONDS for part in PARTS)


def test_a_gpu_keeps_its_results_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    place: Any = SimpleNamespace(cuda=True, device=torch.device("cuda"))
    kept = gpu.file_of(place)
    assert kept == ROOT / "assets" / "bench" / "gpu" / "nvidia-h100-80gb-hbm3.json"
    assert gpu.file_of(CPU) is None


def test_the_tests_that_need_a_gpu_are_found() -> None:
    files = [path.name for path in gpu.TESTS.glob("test_*.py") if gpu.MARK in path.read_text()]
    assert "test_compiled.py" in files


def test_bad_input_is_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--device", "cuda:9"]) == 2
    assert "device 'cuda:9' is not there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--parts", "everything"])
    assert "invalid choice: 'everything'" in capsys.readouterr().err


def test_the_page_names_every_part() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert {part.name for part in PARTS if f"`{part.name}`" not in page} == set()
