"""The README promises commands, files and figures; none may drift from the repository."""

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from d2f.__main__ import COMMANDS
from d2f.bench import report
from d2f.bench.suite import ALL
from d2f.catalogue.pairs import (
    PAIRS,
    PUBLISHED_PAIRS,
    embedded_models,
    pair_memory,
    published_needs,
)
from d2f.catalogue.sizes import gigabytes
from d2f.config import config_from_dict

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


PAGES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.glob("docs/*.md"))}
PAGES |= {name: ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", text_of(page), flags=re.M | re.S)


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


@pytest.mark.parametrize("page", report.PARTS)
def test_figures_are_those_of_the_committed_benchmark(page: str) -> None:
    assert report.rendered(page, text_of(page), report.read_result()) == text_of(page)


def test_memory_needs_are_those_that_loading_and_the_page_go_by() -> None:
    sizes = {name: gigabytes(pair_memory(pair)) for name, pair in PUBLISHED_PAIRS.items()}
    for need in published_needs()[::3]:
        assert need.weights == "bfloat16"
        names = re.findall("`([^`]+)`", need.pair)
        assert {sizes[name] for name in names} == {gigabytes(need.total)}


def test_models_that_ship_were_measured() -> None:
    if "mini-d2f" not in embedded_models():
        pytest.skip("the embedded models are not trained yet")
    result = report.read_result()
    assert result is not None, "run python -m d2f bench --suite mini --out assets/bench/mini.json"
    # Settings that came after the measurement had their defaults then.
    measured = {
        row["decoder"]: (row["model"], config_from_dict(row["decoder"], row["config"]))
        for row in result["results"]
    }
    assert measured.keys() >= {"d2f", "ar", "vanilla"}
    assert measured.items() <= PAIRS["mini"].lanes.items()


def test_two_commands_come_first() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)\n```$", README, flags=re.M | re.S)
    assert blocks[:2] == [
        "pip install -r requirements.txt && python app.py",
        "pip install -r requirements-dev.txt && pytest",
    ]


def test_the_readme_is_short_and_counts_what_it_asks_to_read() -> None:
    assert len(README.splitlines()) <= 130
    said = re.search(r"<!-- lines:begin -->([\d,]+)<!-- lines:end -->", README)
    order = README.partition("\n## Read the code\n")[2].partition("\n## ")[0]
    folder, files = "", []
    for name in re.findall(r"`([\w/]+\.py)`", order):
        folder = name.rpartition("/")[0] or folder
        files.append(ROOT / folder / name.rpartition("/")[2])
    assert len(files) == 10
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert said is not None
    assert abs(lines - int(said[1].replace(",", ""))) <= 100, lines


def test_files_of_the_layout_exist_and_none_is_left_out() -> None:
    folder, named = "", set()
    layout = text_of("docs/architecture.md").partition("\n## Layout\n")[2]
    for line in layout.partition("```text\n")[2].partition("```")[0].splitlines():
        name = line.split()[0]
        path = ROOT / (folder if line.startswith(" ") else "") / name
        folder = folder if line.startswith(" ") else name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name
        named.add(path)
    hidden = {"__init__.py", "__main__.py", "__pycache__", "py.typed", "generate.py", "models.py"}
    engine = {path for path in (ROOT / "d2f").iterdir() if path.name not in hidden}
    assert engine - named == set()


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(page)):
        name, _, anchor = target.partition("#")
        path = (PAGES[page].parent / name) if name else PAGES[page]
        assert path.exists(), target
        titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.M) if anchor else []
        slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in slugs, target


@pytest.mark.parametrize("page", PAGES)
def test_examples_in_python_are_python(page: str) -> None:
    for block in blocks(page, "python"):
        compile(block, page, "exec")


COMMAND = re.compile(r"^(?:python -m d2f|d2f) (\w+) ?(.*)$", flags=re.M)


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_the_options_they_are_given(page: str) -> None:
    shell = [block for kind in ("bash", "sh") for block in blocks(page, kind)]
    for name, rest in COMMAND.findall("\n".join(shell).replace("\\\n", "")):
        parse = import_module(COMMANDS[name][0]).parse
        parse(shlex.split(rest.partition("&&")[0], comments=True))


def test_the_readmes_example_runs() -> None:
    example = [sys.executable, "-c", blocks("README.md", "python")[0]]
    done = subprocess.run(example, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "#### 5 " in done.stdout


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


@pytest.mark.parametrize("page", report.PARTS)
def test_report_writes_between_its_markers_only(page: str) -> None:
    words = list(report.PARTS[page])
    parts = [f"<!-- {word}:begin -->\nstale\n<!-- {word}:end -->" for word in words]
    once = report.rendered(page, "above\n" + "\n".join(parts) + "\nbelow\n", RESULT)
    assert once == report.rendered(page, once, RESULT)
    for word in words:
        assert f"\n<!-- {word}:begin -->\n" in once
        part = once.partition(f"<!-- {word}:begin -->\n")[2].partition(f"\n<!-- {word}:end -->")[0]
        assert part.startswith(("| ", "All tasks", report.NOT_YET))
    assert once.startswith("above\n<!-- ") and once.endswith(" -->\nbelow\n")
    assert "stale" not in once
    begin, end = (f"<!-- {words[-1]}:{side} -->" for side in ("begin", "end"))
    for markers in ("", f"{end}{begin}"):
        with pytest.raises(ValueError, match=f"{page} must hold the markers"):
            report.rendered(page, "\n".join(parts[:-1]) + markers, RESULT)


def test_stale_pages_are_told_and_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    for page, parts in report.PARTS.items():
        markers = [f"<!-- {word}:begin -->\n<!-- {word}:end -->" for word in parts]
        (tmp_path / page).write_text("\n".join(markers))
    (tmp_path / "mini.json").write_text(json.dumps(RESULT))
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULT", tmp_path / "mini.json")
    assert report.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        f"stale: {', '.join(report.PARTS)}; run python -m d2f.bench.report\n"
    )
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    assert "Abacus" in (tmp_path / "README.md").read_text()
