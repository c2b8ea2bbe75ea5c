"""``d2f eval`` with the real lm-evaluation-harness, on embedded models and local files."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from benchmarks import GSM8K, HUMANEVAL, write_lines
from processes import eventually

from d2f import generate, load_model
from d2f.catalogue.pairs import PAIRS
from d2f.eval.__main__ import main
from d2f.tasks import TASKS, draw

pytest.importorskip("lm_eval", reason="needs the extra d2f[eval]")
ROOT = Path(__file__).parents[1]
KEYS = (
    "decoder, model, task, config, problems, accuracy, tokens, seconds, tokens_per_second, ttft, "
    "forwards, tokens_per_forward, ms_per_forward, latency, length, looping, repeated_tokens, "
    "prompts_cut, by_length, scores"
).split(", ")


def run(out: Path, *arguments: str) -> dict[str, Any]:
    """The result of a run that ends well."""
    assert main(["--model", "mini-d2f", "--out", str(out), *arguments]) == 0
    return json.loads(out.read_text())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a run that is refused."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *_, line = err.splitlines()
    return line.removeprefix("d2f eval: ")


def program(*arguments: str, launcher: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *launcher, "-m", "d2f", "eval", "--model", "mini-d2f", *arguments]


def test_scores_and_figures_are_those_of_the_engine_and_the_suite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = ["gsm-mini", "sudoku-mini"]
    arguments = ["--tasks", ",".join(tasks), "--decoders", "d2f,ar", "--limit", "3", "--seed", "5"]
    result = run(tmp_path / "eval.json", *arguments)
    rows = result["results"]
    assert [(row["decoder"], row["task"]) for row in rows] == [
        *(("d2f", "gsm-mini"), ("ar", "gsm-mini"), ("d2f", "sudoku-mini"), ("ar", "sudoku-mini")),
        *(("d2f", "all"), ("ar", "all")),
    ]
    assert list(rows[0]) == KEYS
    for decoder, (name, config) in islice(PAIRS["mini"].lanes.items(), 2):
        model = load_model(name)
        samples = [each for each in result["samples"] if each["decoder"] == decoder]
        right = []
        for task in tasks:
            for number, problem in enumerate(islice(draw(task, "test", 5), 3)):
                chat = [{"role": "user", "content": problem.prompt}]
                trace = generate(model, model.tokenizer.encode_chat(chat), config)
                [sample] = [s for s in samples if (s["task"], s["problem"]) == (task, number)]
                assert sample["text"] == trace.text and sample["config"] == asdict(config)
                assert (sample["tokens"], sample["forwards"]) == (trace.tokens, trace.forwards)
                right.append(TASKS[task].score(problem, trace.text))
                assert sample["right"] == right[-1]
        [row] = [row for row in rows if (row["decoder"], row["task"]) == (decoder, "all")]
        assert (row["problems"], row["accuracy"]) == (6, sum(right) / 6)
        assert row["tokens"] == sum(each["tokens"] for each in samples)
        assert row["seconds"] == pytest.approx(sum(each["seconds"] for each in samples))
    assert rows[0]["scores"]["gsm-mini"]["acc,none"] == rows[0]["accuracy"]
    assert result["metrics"] == {task: "acc,none" for task in tasks}
    assert result["versions"]["lm_eval"] == "0.4.13"
    ar = next(each for each in result["aup"] if (each["decoder"], each["task"]) == ("ar", "all"))
    assert ar["aup"] == pytest.approx(100 * rows[-1]["accuracy"])
    shown = capsys.readouterr().out
    assert "mini-d2f, protocol ours; scores are gsm-mini: acc,none" in shown
    assert [line[:2] for line in shown.splitlines()].count("AR") == 3
    assert not (tmp_path / "eval.json.progress").exists()


def test_gsm8k_by_the_harness_from_a_local_file(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "gsm8k.jsonl", GSM8K)
    asked = ["--tasks", "gsm8k_cot", "--data", f"gsm8k_cot={data}", "--shots", "1"]
    result = run(tmp_path / "eval.json", *asked, "--decoders", "ar", "d2f", "--no-samples")
    assert "samples" not in result
    ar, d2f = result["results"]
    assert (ar["problems"], d2f["problems"], ar["task"]) == (3, 3, "gsm8k_cot")
    assert list(ar["scores"]["gsm8k_cot"]) == [
        "exact_match,strict-match",
        "exact_match_stderr,strict-match",
        "exact_match,flexible-extract",
        "exact_match_stderr,flexible-extract",
    ]
    assert result["metrics"] == {"gsm8k_cot": "exact_match,strict-match"}
    other = run(tmp_path / "other.json", *asked, "--metric", "exact_match,flexible-extract")
    flexible = d2f["scores"]["gsm8k_cot"]["exact_match,flexible-extract"]
    assert other["results"][0]["accuracy"] == flexible
    # One example as turns of a chat, the same for every lane, then the question.
    [sample, *_] = other["samples"]
    tokenizer = load_model("mini-d2f").tokenizer
    example = "There are 15 trees in the grove. Grove workers will plant trees in the grove today."
    assert sample["prompt_tokens"] > len(tokenizer.encode(example + GSM8K[0]["question"]))
    assert sample["cut"] == 0


def test_examples_come_from_a_file_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_lines(tmp_path / "test.jsonl", GSM8K), str(tmp_path / "eval.json")
    asked = ["--model", "mini-d2f", "--tasks", "gsm8k", "--data", f"gsm8k={data}", "--out", out]
    assert refused(capsys, *asked) == (
        "task 'gsm8k' takes 5 examples of split 'train': give it with --data gsm8k:train=FILE, "
        "or ask without examples: --shots 0"
    )
    train = write_lines(tmp_path / "train.jsonl.gz", GSM8K[:2])
    prompts = []
    for more in (["--shots", "0"], ["--shots", "2", "--data", f"gsm8k:train={train}"]):
        assert main([*asked, *more, "--limit", "1"]) == 0
        prompts.append(json.loads(Path(out).read_text())["samples"][0]["prompt_tokens"])
    assert prompts[0] < prompts[1]


def test_generated_code_runs_in_the_sandbox_if_it_may(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "humaneval.jsonl.gz", HUMANEVAL)
    asked = ["--tasks", "humaneval", "--data", f"humaneval={data}"]
    out = tmp_path / "eval.json"
    for task in ("code-mini", "humaneval"):
        named = asked if task == "humaneval" else ["--tasks", task]
        assert refused(capsys, "--model", "mini-d2f", "--out", str(out), *named) == (
            f"task '{task}' runs the code that is answered: allow it with --run-code"
        )
    result = run(out, *asked, "--run-code")
    assert result["metrics"] == {"humaneval": "pass@1,create_test"}
    assert [each["right"] for each in result["samples"]] == [0, 0]
    mini = run(out, "--tasks", "code-mini", "--run-code", "--limit", "2")
    judge, problems = TASKS["code-mini"], islice(draw("code-mini", "test", 0), 2)
    texts = [each["text"] for each in mini["samples"]]
    assert [each["right"] for each in mini["samples"]] == [
        judge.score(problem, text) for problem, text in zip(problems, texts, strict=True)
    ]


def test_an_unknown_score_is_told_and_no_answer_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval.json"
    asked = ["--model", "mini-d2f", "--tasks", "sudoku-mini", "--limit", "2", "--out", str(out)]
    assert refused(capsys, *asked, "--metric", "f1,none") == (
        "--metric: no 'f1,none' for sudoku-mini; it has acc,none"
    )
    kept = (tmp_path / "eval.json.progress" / "0.jsonl").read_text().splitlines()
    assert main(asked) == 0
    seconds = [each["seconds"] for each in json.loads(out.read_text())["samples"]]
    assert seconds == [json.loads(line)[1]["seconds"] for line in kept]


def test_a_sweep_is_drawn_and_its_best_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "tradeoff.html"
    sweep = ["--sweep", "tau_conf=0.5,0.98", "--sweep", "d2f.block_size=16", "--chart", str(chart)]
    few = ["--tasks", "sudoku-mini", "--limit", "2", "--decoders", "d2f@mini-d2f"]
    result = run(tmp_path / "eval.json", *few, *sweep)
    own = PAIRS["mini"].config
    settings = [
        (row["config"]["tau_conf"], row["config"]["block_size"]) for row in result["results"]
    ]
    assert settings == [(own.tau_conf, own.block_size), (0.5, 8), (own.tau_conf, 16)]
    assert [each["settings"] for each in result["aup"]] == [3]
    shown = capsys.readouterr().out
    assert "Not beaten in accuracy and tokens/s: " in shown
    assert "D2F tau_conf=0.5" in shown and "D2F block_size=16" in shown
    page = chart.read_text()
    assert "tokens a forward" in page and "D2F tau_conf=0.5" in page
    assert "cdn.plot.ly" not in page.replace("plotlyServerURL", "")[:2000]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    asked = ["--tasks", "gsm-mini", "--decoders", "ar", "--limit", "12", "--out", str(out)]
    kept = tmp_path / "eval.json.progress" / "0.jsonl"
    killed = subprocess.Popen(program(*asked), cwd=ROOT, stderr=subprocess.PIPE)
    try:
        assert eventually(
            lambda: kept.is_file() and len(kept.read_bytes().splitlines()) >= 3, seconds=120
        )
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
    before = [json.loads(line) for line in kept.read_bytes().split(b"\n")[:-1]]
    assert not out.exists() and 3 <= len(before) < 12
    assert subprocess.run(program(*asked), cwd=ROOT, capture_output=True).returncode == 0
    samples = json.loads(out.read_text())["samples"]
    assert [each["problem"] for each in samples] == list(range(12))
    # The killed run's own answers, seconds included; the others are new.
    for _, answer in before:
        assert answer.items() <= samples[answer["problem"]].items()
    assert json.loads(out.read_text())["results"][0]["problems"] == 12
    assert not kept.parent.exists()


def test_processes_share_the_problems(tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    asked = ["--tasks", "sudoku-mini", "gsm-mini", "--limit", "3", "--threads", "1"]
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0"
    done = subprocess.run(
        program(*asked, "--out", str(shared), launcher=launch.split()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mini-d2f, protocol ours") == 1
    run(alone, *asked)
    unlike = ("seconds", "ttft")
    texts = [
        [
            {k: v for k, v in each.items() if k not in unlike}
            for each in json.loads(p.read_text())["samples"]
        ]
        for p in (alone, shared)
    ]
    assert len(texts[0]) == 6 and texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--tasks", "nonsense"], "no task 'nonsense'; 'lm_eval ls tasks' lists the harness's"),
        (["--decoders", "d2f,x"], "no decoder 'x'; there are "),
        (["--sweep", "tau_conf=2"], "tau_conf must be in [0, 1], got 2.0"),
        (["--sweep", "tau_conf=a"], "tau_conf must be a number, got 'a'"),
        (["--sweep", "speed=1"], "--sweep: no decoder of this run has a setting 'speed'"),
        (["--sweep", "ar.seed=1"], "decoder 'ar' is not in this run of d2f"),
        (["--set", "d2f.tau_conf=2"], "tau_conf must be in [0, 1], got 2.0"),
        (["--set", "ar.seed=2"], "decoder 'ar' is not in this run of d2f"),
        (["--limit", "0"], "--limit must be an integer >= 1, got '0'"),
        (["--limit", "x=1"], "--limit: no decoder 'x'; there are "),
        (["--data", "gsm8k"], "--data must be TASK=FILE or TASK:SPLIT=FILE, got 'gsm8k'"),
        (["--data", "gsm8k=/none"], "--data: there is no file '/none'"),
        (["--data", "gsm8k=README.md"], "--data is of tasks not asked here: gsm8k"),
        (["--protocol", "paper"], "the paper has no protocol for 'mini-d2f'; it has one for "),
        (["--decoders", "ar@mini-d2f"], "decoder 'ar' needs a causal model; 'mini-d2f' is not one"),
        (["--decoders", "d2f@./none"], "no model './none': not one of "),
        (["--device", "cuda:7"], ""),
        (["--out", "/none/eval.json"], "--out must be a file in an existing folder"),
        (["--chart", "/none/a.html"], "--chart must be a file in an existing folder"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_loaded(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("d2f.eval.__main__.load_model", None)
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "eval.json")]
    assert refused(capsys, "--model", "mini-d2f", *out, *arguments).startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no problem"),
        ("[1]\n", "line 1 must be a JSON object"),
        ('{"question": "a"', "line 1: it is no JSON"),
        ("\xff", "data.jsonl cannot be read: it is no text"),
    ],
)
def test_data_that_is_none_is_told(
    text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(text, encoding="latin-1")
    asked = ["--model", "mini-d2f", "--tasks", "gsm8k_cot", "--data", f"gsm8k_cot={data}"]
    assert line in refused(capsys, *asked, "--out", str(tmp_path / "eval.json"))


def test_no_hub_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    asked = ["--tasks", "gsm8k", "--out", str(tmp_path / "eval.json")]
    line = refused(capsys, "--model", "mini-d2f", *asked)
    assert line.startswith("the data of task 'gsm8k' cannot be had from the hub (")
    assert line.endswith("); give a local file: --data gsm8k=FILE")


@pytest.mark.skipif(find_spec("math_verify") is not None, reason="all is installed")
def test_a_tasks_missing_package_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--tasks", "minerva_math_algebra", "--out", str(tmp_path / "eval.json")]
    line = refused(capsys, "--model", "mini-d2f", *asked)
    assert line.startswith("task 'minerva_math_algebra' cannot be loaded: ")
    assert "math_verify" in line
