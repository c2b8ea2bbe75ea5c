"""The evaluation without the harness: answers, loops, figures, what is kept, what is asked."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from benchmarks import HUMANEVAL

from d2f import ARConfig, D2FConfig, VanillaConfig, generate, load_model
from d2f.bench.lanes import Entry
from d2f.errors import InvalidInput
from d2f.eval import paper, protocol
from d2f.eval.__main__ import main, parse
from d2f.eval.answers import COUNTS, Answer, Question, Way, answer, get_ready, prompt_ids, room
from d2f.eval.code import CodeEval, pass_at, passes
from d2f.eval.figures import Marked, aup, aups, lane_row, pareto
from d2f.eval.journal import Journal, key_of
from d2f.eval.loops import repeated
from d2f.eval.plan import lanes, own_decoder
from d2f.eval.report import COLUMNS, paper_rows
from d2f.model import Model
from d2f.tokenizer import Tokenizer

QUESTION = Question("gsm-mini", 3, 0, "Solve 3x + 4 = 19.", ())


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini-d2f")


def given(**changes: object) -> Answer:
    usual = Answer("gsm-mini", 0, 0, "x", 9, 0, 40, False, 0, 2.0, 0.5, 10, "stop")
    return replace(usual, **changes)


# ---- loops


@pytest.mark.parametrize(
    ("ids", "repeats"),
    [
        ([], 0),
        (list(range(100)), 0),
        ([7] * 31, 0),  # short
        ([7] * 32, 31),
        ([*range(50), *[7] * 40], 39),
        ([1, 2, 3] * 11, 30),
        ([*range(100, 110), *[1, 2, 3] * 12, 1, 2], 35),  # cut short inside the unit
        (list(range(20)) * 3, 0),  # three times may be on purpose
        (list(range(20)) * 4, 60),
        (list(range(65)) * 9, 0),  # a unit too long to be told from a list
        ([*[7] * 60, 1], 0),  # it went on
    ],
)
def test_a_loop_at_the_end_is_seen(ids: list[int], repeats: int) -> None:
    assert repeated(ids) == repeats


# ---- answers


def test_an_answer_is_that_of_the_engine_with_its_figures(model: Model) -> None:
    config = D2FConfig(max_new_tokens=128, block_size=8)
    chat = [{"role": "user", "content": QUESTION.prompt}]
    trace = generate(model, model.tokenizer.encode_chat(chat), config)
    asked = replace(QUESTION, prompt=model.tokenizer.chat_text(chat))
    found = answer(model, config, Way(chat=True), asked)
    assert (found.text, found.tokens, found.forwards) == (trace.text, trace.tokens, trace.forwards)
    assert found.finish_reason == trace.finish_reason == "stop"
    assert (found.prompt_tokens, found.cut) == (len(trace.header.prompt_ids), 0)
    assert 0 < found.ttft <= found.seconds
    assert (found.task, found.problem, found.repeat) == ("gsm-mini", 3, 0)


def test_a_stop_sequence_ends_the_text_and_the_run(model: Model) -> None:
    config = D2FConfig(max_new_tokens=128, block_size=8)
    asked = replace(
        QUESTION, prompt=model.tokenizer.chat_text([{"role": "user", "content": QUESTION.prompt}])
    )
    whole = answer(model, config, Way(chat=True), asked)
    stopped = answer(model, config, Way(chat=True), replace(asked, stops=("####", "\n\n")))
    assert "####" in whole.text and stopped.text == whole.text.partition("####")[0]
    assert stopped.finish_reason == "stop"
    short = answer(model, replace(config, max_new_tokens=8), Way(chat=True), asked)
    assert (short.finish_reason, short.tokens) == ("length", 8)
    assert 0 < stopped.tokens < whole.tokens and stopped.forwards <= whole.forwards


def test_the_released_way_decodes_to_the_end_and_cuts_afterwards(model: Model) -> None:
    config = D2FConfig(max_new_tokens=64, block_size=8, tau_add=0.1)
    prompt = model.tokenizer.chat_text([{"role": "user", "content": QUESTION.prompt}])
    asked = replace(QUESTION, prompt=prompt, stops=("####",))
    way = Way(chat=True, whole=True, count="text")
    cut = answer(model, config, way, asked)
    ours = answer(model, config, Way(chat=True), asked)
    assert cut.text == ours.text
    assert cut.tokens == len(model.tokenizer.encode(cut.text))
    assert cut.forwards >= ours.forwards
    short = answer(model, replace(config, max_new_tokens=8), way, asked)
    assert short.finish_reason == "length"
    every = answer(model, config, replace(way, escape=True, count="all"), asked)
    assert every.text.startswith(cut.text + "####")
    assert every.tokens > cut.tokens


@pytest.mark.parametrize(("count", "repeats"), [("answer", 35), ("all", 0), ("text", 0)])
def test_a_loop_is_flagged_and_counts_only_where_the_scripts_count_it(
    model: Model, monkeypatch: pytest.MonkeyPatch, count: str, repeats: int
) -> None:
    monkeypatch.setattr("d2f.eval.answers.repeated", lambda ids: 35)
    prompt = model.tokenizer.chat_text([{"role": "user", "content": QUESTION.prompt}])
    way = Way(chat=True, whole=count != "answer", count=count)
    config = D2FConfig(max_new_tokens=64, block_size=8)
    found = answer(model, config, way, replace(QUESTION, prompt=prompt))
    assert found.looping and found.repeated == repeats
    assert found.said == found.tokens - repeats


def test_a_prompt_longer_than_the_context_warms_up_and_is_answered(model: Model) -> None:
    asked = replace(QUESTION, prompt="Solve 3x + 4 = 19. " * 200)
    configs = [
        D2FConfig(max_new_tokens=8, block_size=8),
        VanillaConfig(max_new_tokens=512, tokens_per_step=64),
    ]
    context = model.config.max_length
    for config, kept in zip(configs, (context - 8, context - 1), strict=True):
        get_ready(model, config, Way(chat=False), [asked])
        found = answer(model, config, Way(chat=False), asked)
        assert found.prompt_tokens == kept
        assert found.prompt_tokens + found.cut == len(model.tokenizer.encode(asked.prompt))


def test_counts_are_those_of_the_scripts(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("one two"), tokenizer.end_id, *tokenizer.encode("x"), tokenizer.pad_id]
    counted = {name: rule(ids, "one", tokenizer) for name, rule in COUNTS.items()}
    assert counted == {
        "answer": len(ids),
        "text": len(tokenizer.encode("one")),
        "all": len(ids) - 2,
    }


def test_a_template_writes_its_own_beginning(tokenizer: Tokenizer) -> None:
    text = tokenizer.chat_text([{"role": "user", "content": "hi"}])
    assert prompt_ids(tokenizer, Way(chat=True), text) == tokenizer.encode_chat(
        [{"role": "user", "content": "hi"}]
    )
    with pytest.raises(InvalidInput, match="a token that begins a text; the model has none"):
        prompt_ids(tokenizer, Way(chat=True, start=True), text)


@pytest.mark.parametrize(
    ("config", "length", "kept"),
    [
        (ARConfig(max_new_tokens=24), 50, 50),
        (ARConfig(max_new_tokens=24), 90, 76),  # what is left out is the prompt's beginning
        (D2FConfig(max_new_tokens=99), 90, 1),
        (VanillaConfig(max_new_tokens=64), 90, 90),  # its canvas shrinks instead
        (VanillaConfig(max_new_tokens=64), 120, 99),
    ],
)
def test_a_prompt_gives_way_to_the_answer(config: ARConfig, length: int, kept: int) -> None:
    ids = list(range(length))
    assert room(ids, 100, config) == ids[length - kept :]


def test_an_answer_that_fills_the_context_is_refused() -> None:
    with pytest.raises(InvalidInput, match="max_new_tokens=100 leaves no room for a prompt"):
        room([1, 2], 100, ARConfig(max_new_tokens=100))


# ---- figures


def test_a_row_counts_no_token_of_a_loop() -> None:
    entry = Entry("d2f", "mini-d2f", D2FConfig())
    marked = [
        Marked(given(), 1.0),
        Marked(given(problem=1, tokens=100, looping=True, repeated=60, forwards=30), 0.0),
        Marked(given(problem=2, tokens=20, seconds=4.0, ttft=1.0, cut=5), 1.0),
    ]
    row = lane_row(entry, "mini-d2f", "gsm-mini", marked)
    assert (row["problems"], row["accuracy"], row["tokens"]) == (3, 2 / 3, 100)
    assert (row["tokens_per_second"], row["tokens_per_forward"]) == (100 / 8, 100 / 50)
    assert (row["latency"], row["ttft"], row["length"]) == (8 / 3, 0.5, 160 / 3)
    assert (row["looping"], row["repeated_tokens"], row["prompts_cut"]) == (1, 60, 1)
    assert [(part["above"], part["up_to"], part["problems"]) for part in row["by_length"]] == [
        (0, 32, 1),
        (32, 64, 1),
        (64, 128, 1),
    ]
    assert [part["accuracy"] for part in row["by_length"]] == [1, 1, 0]
    assert [part["tokens_per_forward"] for part in row["by_length"]] == [2, 4, 40 / 30]


def test_samples_of_one_problem_are_one_problem() -> None:
    entry = Entry("d2f", "mini-d2f", D2FConfig())
    row = lane_row(entry, "m", "t", [Marked(given(repeat=n), 0.5) for n in range(4)])
    assert (row["problems"], row["accuracy"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("points", "best", "expected"),
    [
        ([(1.0, 72.6)], 72.6, 72.6),  # autoregression: its accuracy
        ([(3.0, 60.0)], 80.0, 180.0),  # the least parallel point counts in full
        ([(5.0, 80.0), (1.0, 80.0)], 80.0, 80 + 4 * 80),
        (
            [(1.0, 80.0), (2.0, 76.0)],
            80.0,
            80 + (80 + 76 * math.exp(-3 * (1 - 76 / 80))) / 2,
        ),
        ([(1.0, 80.0), (2.0, 80.0), (9.0, 74.9)], 80.0, 160.0),  # lost more than five points
        ([(1.0, 80.0), (3.0, 75.0)], 80.0, 80 + 80 + 75 * math.exp(-3 / 16)),
        ([(1.0, 0.0), (2.0, 0.0)], 0.0, 0.0),
        ([(1.0, 50.0), (2.0, 60.0)], 60.0, 50 + (50 * math.exp(-0.5) + 60) / 2),
    ],
)
def test_accuracy_under_parallelism(
    points: list[tuple[float, float]], best: float, expected: float
) -> None:
    assert aup(points, best) == pytest.approx(expected, rel=1e-12)


def figures(decoder: str, accuracy: float, tps: float, tpf: float, **more: object) -> dict:
    return {
        "decoder": decoder,
        "model": "m",
        "task": "all",
        "accuracy": accuracy,
        "tokens_per_second": tps,
        "tokens_per_forward": tpf,
        **more,
    }


def test_aup_is_of_all_settings_of_a_decoder_against_the_best_of_all() -> None:
    rows = [
        figures("d2f", 0.8, 100, 4.0),
        figures("ar", 0.9, 30, 1.0),
        figures("d2f", 0.9, 60, 2.0),
        figures("d2f", 0.9, 60, 2.0, task="other"),
    ]
    found = {(each["decoder"], each["task"]): each for each in aups(rows)}
    assert found["d2f", "all"]["settings"] == 2
    assert found["d2f", "all"]["aup"] == 180  # ten points are too many to lose
    assert found["ar", "all"]["aup"] == 90
    assert found["d2f", "other"]["aup"] == 180


def test_what_no_other_beats_is_named_fastest_last() -> None:
    rows = [
        figures("d2f", 0.8, 100, 4),
        figures("ar", 0.9, 30, 1),
        figures("d2f", 0.7, 90, 5),
        figures("d2f", 0.9, 60, 2),
        figures("d2f", 0.8, 100, 3),
    ]
    assert [rows[i]["tokens_per_second"] for i in pareto(rows, "tokens_per_second")] == [60, 100]
    assert pareto(rows, "tokens_per_forward") == [3, 0, 2]


# ---- what is kept


def test_answers_survive_and_a_line_cut_short_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "eval.json.progress"
    journal = Journal(folder)
    journal.add("a", given())
    journal.add("b", given(problem=1, finish_reason=None))
    with (folder / "0.jsonl").open("ab") as file:
        file.write(b'["c",{"task":"gsm')
    again = Journal(folder, 1)
    assert again.answers == {"a": given(), "b": given(problem=1, finish_reason=None)}
    again.add("c", given(problem=2))
    Journal(folder).add("d", given(problem=3))
    assert sorted(Journal(folder, 5).answers) == ["a", "b", "c", "d"]
    again.remove()
    assert not folder.exists()


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '["a"]', '["a",{"task":"gsm-mini"}]', '["a",[]]', "[1e999]"]
)
def test_what_is_no_answer_is_told_with_its_place(tmp_path: Path, line: str) -> None:
    (tmp_path / "0.jsonl").write_text(line + "\n")
    with pytest.raises(InvalidInput, match="0.jsonl, line 1|finite"):
        Journal(tmp_path)


def test_an_answer_is_kept_for_exactly_what_it_depends_on() -> None:
    about = {"model": "m", "config": asdict(D2FConfig())}
    others = [
        key_of(about, replace(QUESTION, problem=4)),
        key_of(about, replace(QUESTION, repeat=1)),
        key_of(about, replace(QUESTION, prompt="Solve 3x + 4 = 20.")),
        key_of(about, replace(QUESTION, stops=("\n",))),
        key_of({**about, "config": asdict(D2FConfig(tau_conf=0.8))}, QUESTION),
    ]
    assert len({key_of(about, QUESTION), *others}) == 6
    assert key_of(dict(about), replace(QUESTION)) == key_of(about, QUESTION)


# ---- generated code


@pytest.mark.parametrize("problem", HUMANEVAL, ids=lambda problem: problem["task_id"])
def test_a_solution_passes_its_test_and_a_wrong_one_does_not(problem: dict[str, str]) -> None:
    test = f"{problem['test']}\ncheck({problem['entry_point']})"
    assert passes(problem["prompt"] + problem["canonical_solution"], test)
    assert not passes(problem["prompt"] + "    return 7\n", test)


@pytest.mark.parametrize(
    "candidate",
    [
        "def f(): return 2",
        "def f(:",
        "import os\nos._exit(0)",
        "import os\ndef f(): return os.system('true') or 1",
        "import socket\ndef f(): return 1",
        "def f(): return open('/etc/passwd') and 1",
        "def f():\n    while True: pass",
        "raise SystemExit(0)",
        "def f(): return 1\n'''",
        "exit()",
    ],
)
def test_what_fails_or_is_forbidden_does_not_pass(candidate: str) -> None:
    assert not passes(candidate, "assert f() == 1")


@pytest.mark.parametrize("module", ["typing", "hashlib", "heapq", "datetime", "cmath", "math"])
def test_modules_of_the_benchmarks_are_there(module: str) -> None:
    assert passes(f"def f():\n    import {module}\n    return 1", "assert f() == 1")


def test_a_test_too_long_for_the_sandbox_is_told() -> None:
    with pytest.raises(
        InvalidInput, match="a test of 30,000 characters is longer than the sandbox"
    ):
        passes("def f(): return 1", "#" * 30_000)


def test_the_metric_counts_as_the_harness_expects() -> None:
    right, wrong = "def f(): return 1", "def f(): return 2"
    scores, told = CodeEval().compute(
        references=["assert f() == 1"] * 2,
        predictions=[[right, wrong], [wrong, wrong]],
        k=[1, 2, 10],
    )
    assert scores == {"pass@1": 0.25, "pass@2": 0.5}
    assert [[verdict["passed"] for _, verdict in told[n]] for n in (0, 1)] == [
        [True, False],
        [False, False],
    ]
    assert pass_at(5, 2, 3) == pytest.approx(1 - 1 / 10)


def test_no_other_metric_is_fetched() -> None:
    with pytest.raises(InvalidInput, match="metric 'bleurt' would be downloaded and run"):
        CodeEval().load("bleurt")


# ---- the paper


def test_published_figures_are_those_of_the_tables() -> None:
    assert paper.LLADA["D2F"]["gsm8k"] == paper.Published(52.5, 2.8, 144, 77.3)
    assert paper.LLADA["Fast-dLLM dual"]["math"] == paper.Published(42.5, 5.8, 246, 22.4)
    assert paper.LLADA[paper.CACHE_ONLY]["mbpp"] == paper.Published(18.1, 3.8, 69, 37.6)
    assert paper.DREAM["vanilla"]["humaneval"] == paper.Published(20.2, 12.6, 255, 54.3)
    assert paper.DREAM["D2F"]["mbpp"] == paper.Published(105, 2.3, 240, 55.2)
    for table in (paper.LLADA, paper.DREAM):
        assert len(table) == 6 and all(tuple(row) == paper.TASKS for row in table.values())


def test_published_and_measured_stand_one_above_the_other() -> None:
    row = {
        **figures("d2f", 0.75, 200.0, 3.0),
        "task": "gsm8k",
        "config": asdict(D2FConfig(tau_add=0.7)),
        "latency": 0.72,
        "length": 144.0,
    }
    only = {**row, "config": asdict(D2FConfig(tau_add=1.0)), "tokens_per_second": 60.0}
    result = {"repository": "GSAI-ML/LLaDA-8B-Instruct", "results": [row, only]}
    rows = paper_rows(result)
    assert rows[0] == ("vanilla", "gsm8k", "published", "7.2", "32.3", "231", "77.4")
    assert rows[-4:] == [
        ("D2F, cache only", "gsm8k", "published", "17.5", "8.3", "145", "78.1"),
        ("D2F, cache only", "gsm8k", "measured", "60.0", "0.72", "144", "75.0"),
        ("D2F", "gsm8k", "published", "52.5", "2.8", "144", "77.3"),
        ("D2F", "gsm8k", "measured", "200", "0.72", "144", "75.0"),
    ]
    assert len(rows) == 8
    assert paper_rows({**result, "repository": None}) == []


@pytest.mark.parametrize(
    ("model", "task", "decoder", "name", "shots", "settings"),
    [
        ("d2f-llada-8b-instruct", "gsm8k", "d2f", "gsm8k", 4, (512, 64, 0.7, 0.95, 0.9)),
        ("d2f-llada-8b-instruct", "math", "d2f", "minerva_math", 0, (512, 32, 0.1, 0.95, 0.9)),
        ("d2f-dream-7b-base", "mbpp", "d2f", "mbpp", 3, (240, 48, 0.1, 0.95, 0.9)),
        ("d2f-dream-7b-base", "humaneval", "d2f", "humaneval", 0, (256, 32, 0.9, 0.95, 0.95)),
    ],
)
def test_presets_of_the_paper(
    model: str, task: str, decoder: str, name: str, shots: int, settings: tuple[float, ...]
) -> None:
    preset = protocol.presets(model)[task]
    assert (preset.task, preset.shots) == (name, shots)
    runs, config = protocol.known_lanes(model, task, preset)[decoder]
    assert runs == model and isinstance(config, D2FConfig)
    own = (config.max_new_tokens, config.block_size)
    assert (*own, config.tau_add, config.tau_act, config.tau_conf) == settings


def test_the_papers_ways_of_asking() -> None:
    llada = protocol.presets("d2f-llada-8b-instruct")
    assert llada["gsm8k"].way == Way(chat=True, start=True, whole=True, count="text")
    assert llada["humaneval"].way == Way(
        chat=False, start=True, whole=True, escape=True, count="text"
    )
    assert llada["gsm8k"].vanilla == VanillaConfig(max_new_tokens=256, block_size=8)
    dream = protocol.presets("d2f-dream-7b-base")
    assert dream["gsm8k"].task == "gsm8k_cot" and dream["gsm8k"].shots == 8
    assert dream["gsm8k"].way == Way(chat=False, start=True, whole=True, count="all")
    with pytest.raises(InvalidInput, match="no protocol for 'mini-d2f'; it has one for"):
        protocol.presets("mini-d2f")


def test_lanes_come_from_the_models_pair() -> None:
    known = protocol.known_lanes("mini-d2f")
    assert [known[decoder][0] for decoder in ("d2f", "ar", "vanilla")] == [
        "mini-d2f",
        "mini-ar",
        "mini-dllm",
    ]
    assert known["d2f"][1].max_new_tokens == known["ar"][1].max_new_tokens == 256
    own = protocol.known_lanes("./runs/mini-d2f")
    assert (own["d2f"][0], own["ar"][0]) == ("./runs/mini-d2f", "mini-ar")
    published = protocol.known_lanes("d2f-llada-8b-instruct", "gsm8k")
    assert published["ar"][0] == "llama-3-8b-instruct"
    assert published["vanilla"][0] == "llada-8b-instruct"
    assert {config.max_new_tokens for _, config in published.values()} == {512}
    assert {name for name, _ in protocol.known_lanes("./mine").values()} == {"./mine"}


def test_without_the_harness_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("d2f.eval.__main__.find_spec", lambda name: None)
    assert main(["--model", "mini-d2f", "--out", str(tmp_path / "eval.json")]) == 2
    assert capsys.readouterr().err == (
        "d2f eval: it needs the lm-evaluation-harness: pip install 'd2f[eval]', in a "
        "checkout pip install lm_eval==0.4.13\n"
    )


@pytest.mark.parametrize(
    ("model", "decoder"),
    [
        ("mini-d2f", "d2f"),
        ("mini-ar", "ar"),
        ("assets/models/mini-dllm", "vanilla"),
        ("llada-8b-instruct", "vanilla"),
        ("qwen2.5-7b", "ar"),
    ],
)
def test_a_model_has_the_decoder_that_it_is_made_for(model: str, decoder: str) -> None:
    args = parse(["--model", model])
    assert own_decoder(args) == decoder
    [entry] = lanes(args, "gsm8k", None)
    assert (entry.decoder, entry.model) == (decoder, model)


def test_the_page_tells_every_figure_and_the_papers_tasks() -> None:
    page = (Path(__file__).parents[1] / "docs/evaluation.md").read_text()
    for column in COLUMNS[3:]:
        assert f"\n| {column} | `" in page
    for presets in protocol.PRESETS.values():
        for task, preset in presets.items():
            row = next(line for line in page.splitlines() if line.startswith(f"| `{task}` |"))
            shots = f"{preset.shots} examples" if preset.shots else "no example"
            assert shots in row
            assert preset.task == task or f"`{preset.task}`" in row
