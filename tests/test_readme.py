"""The README promises commands, files and figures; none may drift from the repository."""

import json
import re
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from d2f.bench import report
from d2f.bench.suite import ALL
from d2f.catalogue.pairs import (
    PAIRS,
    PUBLISHED_PAIRS,
    embedded_models,
    pair_memory,
    published_needs,
)
from d2f.catalogue.sizes import gigabytes, needs_table
from d2f.config import config_to_dict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULT = {
    "suite": "mini",
    "seed": 3,
    "dtype": "float32",
    "machine": {
        "cpu": "Abacus",
        "cores": 2,
        "threads": 1,
        "bf16_native": False,
        "device": "cpu",
        "platform": "Linux",
    },
    "versions": {"python": "3.11", "torch": "2.13"},
    "results": [
        {
            "decoder": decoder,
            "model": f"mini-{decoder}",
            "task": task,
            "config": {},
            "problems": 40,
            "accuracy": 0.925,
            "tokens": 4000,
            "seconds": 4000 / speed,
            "tokens_per_second": speed,
            "ttft": 0.0123,
            "forwards": 1000,
            "tokens_per_forward": 4.0,
            "ms_per_forward": 4000 / speed,
        }
        for decoder, speed in (("d2f", 1500.0), ("ar", 500.0))
        for task in ("gsm-mini", ALL)
    ],
    "ratios": {"d2f_vs_ar": 3.0},
}


def section(title: str) -> str:
    return re.split(r"^## ", README.partition(f"\n## {title}\n")[2], flags=re.M)[0]


def test_the_front_matter_describes_a_space_that_starts() -> None:
    _, front, _ = README.split("---\n", 2)
    space = yaml.safe_load(front)
    (bounds,) = re.findall(r"^gradio(\S+)$", (ROOT / "requirements.txt").read_text(), flags=re.M)
    assert space["sdk"] == "gradio"
    assert space["sdk_version"] in SpecifierSet(bounds)
    assert space["python_version"] == "3.12"
    assert (ROOT / space["app_file"]).is_file() and (ROOT / space["thumbnail"]).is_file()
    assert len(space["short_description"]) <= 60
    assert space["suggested_hardware"] == "cpu-basic"
    assert {space["colorFrom"], space["colorTo"]} <= set(
        "red yellow green blue indigo purple pink gray".split()
    )


def test_figures_are_those_of_the_committed_benchmark() -> None:
    assert report.rendered(README, report.read_result()) == README


def test_memory_needs_are_those_that_loading_and_the_page_go_by() -> None:
    lines = section("Published models").splitlines()
    table = needs_table(published_needs()).splitlines()
    first = lines.index(report.NEEDS_BEGIN) + 1
    assert lines[first : lines.index(report.NEEDS_END)] == table
    sizes = {name: gigabytes(pair_memory(pair)) for name, pair in PUBLISHED_PAIRS.items()}
    for need in published_needs()[::3]:
        assert need.weights == "bfloat16"
        names = re.findall("`([^`]+)`", need.pair)
        assert {sizes[name] for name in names} == {gigabytes(need.total)}


def test_models_that_ship_were_measured() -> None:
    if "mini-d2f" not in embedded_models():
        pytest.skip("the embedded models are not trained yet")
    result = report.read_result()
    assert result is not None, "run python -m d2f.bench --suite mini --out assets/bench/mini.json"
    measured = {row["decoder"]: (row["model"], row["config"]) for row in result["results"]}
    lanes = PAIRS["mini"].lanes.items()
    assert measured == {name: (model, config_to_dict(config)) for name, (model, config) in lanes}


def test_two_commands_come_first() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)\n```$", README, flags=re.M | re.S)
    assert blocks[:2] == [
        "pip install -r requirements.txt && python app.py",
        "pip install -r requirements-dev.txt && pytest",
    ]


def test_files_of_the_layout_exist() -> None:
    folder, missing = "", []
    for line in section("Layout").partition("```text\n")[2].partition("```")[0].splitlines():
        name = line.split()[0]
        path = ROOT / (folder if line.startswith(" ") else "") / name
        folder = folder if line.startswith(" ") else name
        if not (path.is_dir() if name.endswith("/") else path.is_file()):
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_pictures_and_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_report_states_machine_speeds_accuracy_and_both_absolutes() -> None:
    text = report.markdown_report(json.loads(json.dumps(RESULT)))
    assert "| D2F | all | 40 | 92.5% | 1,500 | 12.3 | 4.00 | 2.67 | 1,000 | 4,000 |" in text
    assert "| AR | gsm-mini | 40 | 92.5% | 500 | 12.3 | 4.00 | 8.00 | 1,000 | 4,000 |" in text
    assert (
        "- D2F makes 3.00 times the tokens/s of AR: 1,500 against 500, with 92.5% against 92.5% "
        "of the problems solved (40 and 40 problems)." in text
    )
    assert (
        "Abacus, 2 cores, torch threads: 1, device cpu, float32 (bfloat16 not native), Linux; "
        "python 3.11, torch 2.13; problems drawn with seed 3." in text
    )


def test_report_writes_between_its_markers_only() -> None:
    needs = f"{report.NEEDS_BEGIN}\nstale\n{report.NEEDS_END}"
    text = f"above\n{report.BEGIN}\nstale\n{report.END}\nbetween\n{needs}\nbelow\n"
    once = report.rendered(text, RESULT)
    assert once == report.rendered(once, RESULT) != text
    assert once.startswith(f"above\n{report.BEGIN}\n")
    assert f"{report.END}\nbetween\n{report.NEEDS_BEGIN}\n| pair | weights" in once
    assert once.endswith(f"{report.NEEDS_END}\nbelow\n")
    assert "stale" not in once
    for markers in ("", f"{report.BEGIN}{report.END}", needs):
        with pytest.raises(ValueError, match="markers"):
            report.rendered(markers, RESULT)


def test_stale_readme_is_told_and_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme, result = tmp_path / "README.md", tmp_path / "mini.json"
    markers = (report.BEGIN, report.END, report.NEEDS_BEGIN, report.NEEDS_END)
    readme.write_text("\n".join(markers))
    result.write_text(json.dumps(RESULT))
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "RESULT", result)
    assert report.main(["--check"]) == 1
    assert "python -m d2f.bench.report" in capsys.readouterr().err
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    assert "Abacus" in readme.read_text()
