"""The benchmark: who runs when, what the rows add up to, and what it prints."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from folders import CONTEXT, save_models
from torch._inductor.exc import InvalidCxxCompiler

from d2f import ARConfig, D2FConfig, VanillaConfig, load_model
from d2f.bench import report, tables
from d2f.bench.__main__ import main
from d2f.bench.suite import (
    ALL,
    Lane,
    Outcome,
    Row,
    answers,
    check_configs,
    held_out,
    ratios,
    rows,
    schedule,
    solve,
)
from d2f.catalogue.pairs import PAIRS
from d2f.config import CONFIGS, DecodeConfig, config_to_dict
from d2f.machine import default_dtype, machine
from d2f.nn.compiled import Fixed
from d2f.tasks import TALK, TASKS, split_of

KEYS = (
    "decoder, model, task, config, problems, accuracy, tokens, seconds, tokens_per_second, ttft, "
    "forwards, tokens_per_forward, ms_per_forward"
).split(", ")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return save_models(tmp_path_factory.mktemp("models"), tokenizer_folder)


def quick(models: Path, *decoders: str) -> list[str]:
    """Arguments of a run of a second: small models, short answers."""
    lanes = PAIRS["mini"].lanes
    chosen = [f"--model={decoder}={models / lanes[decoder][0]}" for decoder in decoders]
    short = [f"--set={decoder}.max_new_tokens=16" for decoder in decoders]
    return ["--decoders", *decoders, *chosen, *short]


def lane(models: Path, decoder: str, config: DecodeConfig, problems: int) -> Lane:
    return Lane(decoder, load_model(models / PAIRS["mini"].lanes[decoder][0]), config, problems)


def three_lanes(models: Path) -> list[Lane]:
    return [
        lane(models, "d2f", D2FConfig(max_new_tokens=16), 3),
        lane(models, "ar", ARConfig(max_new_tokens=16), 3),
        lane(models, "vanilla", VanillaConfig(max_new_tokens=16), 1),
    ]


def outcome(decoder: str, task: str, tokens: int, seconds: float, correct: bool) -> Outcome:
    config = CONFIGS[decoder](max_new_tokens=16)
    ttft, forwards = seconds / 4, tokens // 2
    return Outcome(decoder, config, task, correct, tokens, seconds, ttft, forwards)


def test_lanes_take_turns_and_the_first_turn_alternates(models: Path) -> None:
    problems = held_out(["math-mini", "sudoku-mini"], 3, seed=5)
    turns = list(schedule(three_lanes(models), problems))
    order = [(one.decoder, problem.key) for one, problem in turns]
    m, s = ([problem.key for problem in problems[task]] for task in problems)
    assert order == [
        *(("d2f", m[0]), ("ar", m[0]), ("vanilla", m[0])),
        *(("ar", m[1]), ("d2f", m[1])),
        *(("d2f", m[2]), ("ar", m[2])),
        *(("vanilla", s[0]), ("ar", s[0]), ("d2f", s[0])),
        *(("d2f", s[1]), ("ar", s[1])),
        *(("ar", s[2]), ("d2f", s[2])),
    ]


def test_problems_are_held_out_and_the_seed_draws_them() -> None:
    problems = held_out(list(TASKS), 3, seed=1)
    assert list(problems) == list(TASKS)
    assert problems == held_out(list(TASKS), 3, seed=1) != held_out(list(TASKS), 3, seed=2)
    assert {split_of(problem) for own in problems.values() for problem in own} == {"test"}


def test_rows_add_up_tokens_and_seconds_not_speeds(models: Path) -> None:
    outcomes = [
        outcome("d2f", "gsm-mini", 100, 1.0, True),
        outcome("d2f", "gsm-mini", 20, 2.0, False),
        outcome("d2f", "math-mini", 60, 1.0, True),
    ]
    config = D2FConfig(max_new_tokens=16)
    gsm, math, total = rows([lane(models, "d2f", config, 2)], outcomes)
    assert [row.task for row in (gsm, math, total)] == ["gsm-mini", "math-mini", ALL]
    assert gsm == Row(
        decoder="d2f",
        model="mini-d2f",
        task="gsm-mini",
        config=config_to_dict(config),
        problems=2,
        accuracy=0.5,
        tokens=120,
        seconds=3.0,
        tokens_per_second=40.0,
        ttft=0.375,
        forwards=60,
        tokens_per_forward=2.0,
        ms_per_forward=50.0,
    )
    assert (total.problems, total.tokens, total.seconds) == (3, 180, 4.0)
    assert (total.tokens_per_second, total.accuracy) == (45.0, 2 / 3)
    assert list(asdict(total)) == KEYS


def test_ratios_stand_beside_both_absolutes(models: Path) -> None:
    outcomes = [
        outcome("d2f", "gsm-mini", 100, 0.5, True),
        outcome("ar", "gsm-mini", 100, 2.0, True),
        outcome("vanilla", "gsm-mini", 100, 50.0, True),
    ]
    assert ratios(rows(three_lanes(models), outcomes)) == {
        "d2f_vs_ar": 4.0,
        "d2f_vs_vanilla": 100.0,
        "d2f_tokens_per_second": 200.0,
        "ar_tokens_per_second": 50.0,
        "vanilla_tokens_per_second": 2.0,
    }
    assert ratios(rows(three_lanes(models)[1:2], outcomes)) == {"ar_tokens_per_second": 50.0}


def test_a_sweep_adds_lanes_whose_rows_stand_apart(models: Path, capsys) -> None:
    own = PAIRS["mini"].config.tau_conf  # measured once
    sweep = ["--sweep", f"d2f.tau_conf=0.5,{own}", "--sweep", "d2f.block_size=16"]
    few = ["--tasks", "sudoku-mini", "--problems", "1", "--json"]
    assert main([*quick(models, "d2f", "ar"), *sweep, *few]) == 0
    result = json.loads(capsys.readouterr().out)
    together = [row for row in result["results"] if row["task"] == ALL]
    assert [row["decoder"] for row in together] == ["d2f", "ar", "d2f", "d2f"]
    changes = [tables.changed(row, together) for row in together]
    assert changes == [{}, {}, {"tau_conf": 0.5}, {"block_size": 16}]
    assert result["ratios"]["d2f_tokens_per_second"] == together[0]["tokens_per_second"]
    shown = [" ".join(line.split()) for line in report.text_report(result).splitlines()]
    assert any(line.startswith("D2F tau_conf=0.5 all") for line in shown)
    ratio = report.ratio_lines(result)
    assert len(ratio) == 1 and ratio[0].startswith("D2F makes")


def test_a_sweep_of_what_is_not_there_is_refused(models: Path, capsys) -> None:
    for sweep, told in (("vanilla.block_size=8", "not in this run"), ("d2f.tau=1", "tau")):
        assert main([*quick(models, "d2f"), "--sweep", sweep]) == 2
        assert told in capsys.readouterr().err


def test_scoring_costs_a_lane_nothing(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(text: str, expected: str) -> bool:
        time.sleep(0.5)
        return True

    problem = held_out(["gsm-mini"], 1, seed=0)["gsm-mini"][0]
    monkeypatch.setitem(TASKS, "gsm-mini", replace(TASKS["gsm-mini"], judge=slow))
    answered = solve(lane(models, "ar", ARConfig(max_new_tokens=2), 1), problem)
    assert answered.correct and answered.seconds < 0.5
    assert (answered.tokens, answered.forwards) == (2, 2)


def test_every_turn_of_a_conversation_is_asked_after_right_answers(models: Path) -> None:
    problem = next(p for p in held_out(["talk-turns"], 20, 0)["talk-turns"] if len(p.turns) == 3)
    ar = lane(models, "ar", ARConfig(max_new_tokens=2), 1)
    assert [outcome.task for outcome in answers(ar, problem)] == ["talk-turns"] * 3
    assert [m["content"] for m in problem.messages(2)] == [
        text for turn in problem.turns for text in (turn.prompt, turn.answer)
    ][:-1]
    (gsm,) = held_out(["gsm-mini"], 1, seed=0)["gsm-mini"]
    assert len(list(answers(ar, gsm))) == 1


def test_talk_is_a_suite_with_tasks_of_its_own(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--suite", "talk", "--problems", "1", "--json", *quick(models, "d2f", "ar")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["suite"] == "talk"
    assert {row["task"] for row in result["results"]} == {*TALK, "all"}


def test_vanilla_canvas_ends_where_the_context_does(models: Path) -> None:
    problem = held_out(["gsm-mini"], 1, seed=0)["gsm-mini"][0]
    long = replace(problem, turns=(replace(problem.turns[0], prompt="1 2 3 4 5 " * 73),))
    vanilla = lane(models, "vanilla", VanillaConfig(max_new_tokens=512, tokens_per_step=64), 1)
    messages = [{"role": "user", "content": long.prompt}]
    room = CONTEXT - len(vanilla.model.tokenizer.encode_chat(messages))
    assert 0 < room < 512
    assert solve(vanilla, long).forwards == -(-room // 64)


def test_lanes_must_run_the_same_race() -> None:
    d2f, ar = D2FConfig(max_new_tokens=64), ARConfig(max_new_tokens=64)
    check_configs({"d2f": d2f, "ar": ar, "vanilla": VanillaConfig()})
    with pytest.raises(ValueError, match="max_new_tokens must be the same"):
        check_configs({"d2f": d2f, "ar": replace(ar, max_new_tokens=65)})
    with pytest.raises(ValueError, match=r"ar\.temperature must be 0"):
        check_configs({"d2f": d2f, "ar": replace(ar, temperature=0.5)})


def test_json_is_all_that_stdout_holds(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "d2f.bench", *quick(models, "d2f", "ar", "vanilla")),
            *("--problems", "2", "--vanilla-problems", "1", "--threads", "1", "--seed", "9"),
            *("--json", "--out", str(out)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(out.read_text()) == result
    assert result["seed"] == 9
    assert result["machine"].keys() >= {"cpu", "cores", "threads", "bf16_native", "platform"}
    assert {run["threads"] for run in result["runs"].values()} == {"1"}
    assert result["versions"].keys() == {"python", "torch", "transformers"}
    counts = {"d2f": 2, "ar": 2, "vanilla": 1}
    assert result["runs"].keys() == counts.keys()
    assert {run["attention"] for run in result["runs"].values()} == {"sdpa"}
    lines = [(row["decoder"], row["task"], row["problems"]) for row in result["results"]]
    assert lines == [
        (decoder, task, count * (len(TASKS) if task == ALL else 1))
        for decoder, count in counts.items()
        for task in [*TASKS, ALL]
    ]
    for decoder in counts:
        *parts, total = (row for row in result["results"] if row["decoder"] == decoder)
        for name in ("problems", "tokens", "forwards"):
            assert total[name] == sum(row[name] for row in parts)
        assert total["seconds"] == pytest.approx(sum(row["seconds"] for row in parts))
        assert total["tokens_per_second"] == total["tokens"] / total["seconds"]
        assert result["ratios"][f"{decoder}_tokens_per_second"] == total["tokens_per_second"]
    speed = {decoder: result["ratios"][f"{decoder}_tokens_per_second"] for decoder in counts}
    assert result["ratios"]["d2f_vs_ar"] == speed["d2f"] / speed["ar"]
    assert result["ratios"]["d2f_vs_vanilla"] == speed["d2f"] / speed["vanilla"]


def test_table_first_then_one_line_of_json(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["--tasks", "math-mini", "--problems", "1", "--set", "d2f.tau_conf=0.5"]
    assert main([*quick(models, "ar", "d2f"), *changes]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert "\n".join(table) == report.text_report(result)
    assert [row["decoder"] for row in result["results"]] == ["ar", "ar", "d2f", "d2f"]
    assert result["results"][-1]["config"]["tau_conf"] == 0.5


def test_reports_name_how_the_models_ran() -> None:
    run = {"attention": "sdpa", "forward": "eager", "weights": "bfloat16"}
    told = "attention sdpa, forward eager, weights bfloat16; "
    assert tables.runs_line({}) == ""
    assert tables.runs_line({"runs": {"d2f": run, "ar": run}}) == told
    other = run | {"attention": "flash (flash_attn 2.8)"}
    assert tables.runs_line({"runs": {"d2f": other, "ar": run}}) == (
        "D2F: attention flash (flash_attn 2.8), forward eager, weights bfloat16; AR: " + told
    )


def test_ratios_of_quantised_lanes_say_that_they_are_none_of_the_decoders() -> None:
    row = {"task": ALL, "tokens_per_second": 9.0, "accuracy": 1.0, "problems": 1}
    result = {
        "results": [row | {"decoder": decoder} for decoder in ("d2f", "ar")],
        "ratios": {"d2f_vs_ar": 1.0},
    }
    (ratio,) = report.ratio_lines(result)
    runs = {decoder: {"weights": "int4"} for decoder in ("d2f", "ar")}
    assert report.ratio_lines(result | {"runs": runs}) == [
        ratio,
        "Weights of int4 are for memory, not for racing: they make narrow and wide steps faster or "
        "slower by different amounts, so this ratio says nothing about the decoders.",
    ]
    assert report.ratio_lines(result | {"ratios": {}, "runs": runs}) == []


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"cuda": "Abacus 9000", "cuda:1": "Abacus 8000"}
    monkeypatch.setattr("torch.cuda.get_device_name", names.__getitem__)
    devices = [machine(device)["device"] for device in ("cpu", "cuda", "cuda:1")]
    assert devices == ["cpu", "cuda (Abacus 9000)", "cuda:1 (Abacus 8000)"]


def test_what_cannot_be_compiled_is_told_in_one_line(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*bounds: object) -> Iterator[tuple[int, int]]:
        raise InvalidCxxCompiler()

    monkeypatch.setattr(Fixed, "preparing", failing)
    assert main([*quick(models, "ar"), "--problems", "1", "--compile"]) == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    said = "d2f bench: the steps cannot be compiled: No working C++ compiler found"
    assert out == "" and last.startswith(said)


def test_published_pairs_are_suites_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.checkpoints.plan.free_memory", lambda device: 6_000_000_000)
    for suite, model in (("llada", "d2f-llada-8b-instruct"), ("dream", "d2f-dream-7b-instruct")):
        assert main(["--suite", suite, "--dtype", "bfloat16"]) == 2
        assert f"d2f bench: {model} needs about" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (["--attention", "flash"], "attention 'flash' needs a CUDA GPU"),
        (["--tasks", "chess"], "invalid choice: 'chess'"),
        (["--decoders", "beam"], "invalid choice: 'beam'"),
        (["--problems", "0"], "must be an integer >= 1, got '0'"),
        (["--set", "tau_conf=0.5"], "--set must begin with one of d2f, ar, vanilla"),
        (["--set", "ar.tau_conf=0.5"], "decoder 'ar' has no setting 'tau_conf'"),
        (["--set", "d2f.tau_conf=2"], "tau_conf must be in [0, 1]"),
        (["--set", "d2f.max_new_tokens=8"], "max_new_tokens must be the same for d2f and ar"),
        (["--decoders", "ar", "--set", "d2f.tau_conf=0.5"], "'d2f' is not in this run of ar"),
        (["--decoders", "ar", "--model", "ar=nowhere"], "no model 'nowhere'"),
        (["--out", "nowhere/result.json"], "--out must be a file in an existing folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    changes: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(changes)
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert complaint in err


@pytest.mark.parametrize(
    ("device", "flags", "embedded", "dtype"),
    [
        ("cuda:0", "", True, "bfloat16"),
        ("cpu", "avx2 avx512_bf16", False, "bfloat16"),
        ("cpu", "avx2 avx512_bf16", True, "float32"),
        ("cpu", "avx2", False, "float32"),
    ],
)
def test_the_dtype_that_suits_machine_and_models(
    device: str, flags: str, embedded: bool, dtype: str, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n\n")
    monkeypatch.setattr("d2f.machine.CPUINFO", tmp_path / "cpuinfo")
    assert default_dtype(device, embedded=embedded) == dtype
