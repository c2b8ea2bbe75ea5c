"""The command line, run as a user runs it; in this process where only what it prints matters."""

import io
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from folders import save_models

import d2f
from d2f import ARConfig, Trace
from d2f.catalogue.pairs import PAIRS
from d2f.config import config_to_dict

PROMPT = "Tom has 3 apples."
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return save_models(tmp_path_factory.mktemp("models"), tokenizer_folder)


@pytest.fixture
def cli(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """``python -m d2f generate`` without the start of a process: (exit status, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("d2f.catalogue.pairs.EMBEDDED", models)
        monkeypatch.setattr(sys, "argv", ["d2f.generate", *arguments])
        with pytest.raises(SystemExit) as status:
            runpy.run_module("d2f.generate", run_name="__main__")
        return int(status.value.code or 0), *capsys.readouterr()

    return run


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "d2f.generate", *arguments]


def expected(models: Path, name: str, config: d2f.DecodeConfig) -> Trace:
    model = d2f.load_model(models / name)
    prompt_ids = model.tokenizer.encode_chat([{"role": "user", "content": PROMPT}])
    return d2f.generate(model, prompt_ids, config)


def test_json_is_all_that_stdout_holds(models: Path) -> None:
    done = subprocess.run(
        command(
            *("--model", str(models / "mini-d2f"), "--prompt", PROMPT, "--json"),
            *("--max-new-tokens", "24", "--tau-conf", "0.5", "--dtype", "float32"),
            *("--threads", "1"),
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    config = replace(PAIRS["mini"].config, max_new_tokens=24, tau_conf=0.5)
    trace = expected(models, "mini-d2f", config)
    assert answer["config"] == config_to_dict(config)
    assert answer["token_ids"] == list(trace.token_ids)
    assert answer["text"] == trace.text
    assert (answer["model"], answer["decoder"]) == ("mini-d2f", "d2f")
    assert trace.metrics.keys() <= answer.keys()
    assert answer["forwards"] == trace.forwards
    assert answer["versions"] == trace.header.versions
    assert (answer["versions"]["attention"], answer["versions"]["forward"]) == ("sdpa", "eager")
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["d2f.generate", "d2f.bench"])
def test_threads_wait_passively(module: str) -> None:
    """OpenMP reads its policy when torch loads: setting it later is setting it never."""
    unset = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    maps = Path("/proc/self/maps")
    if not maps.is_file() or "libgomp" not in maps.read_text():
        pytest.skip("torch does not use GNU's OpenMP here")
    done = subprocess.run(
        [sys.executable, "-m", module, "--json", "--problems", "0", "--model", "none"],
        capture_output=True,
        text=True,
        env=unset | {"OMP_DISPLAY_ENV": "VERBOSE"},
    )
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("mini-ar", ARConfig(max_new_tokens=20)),
        ("mini-d2f", replace(PAIRS["mini"].config, max_new_tokens=20)),
        ("mini-dllm", replace(PAIRS["mini"].vanilla, max_new_tokens=20)),
    ],
)
def test_text_streams_from_the_decoder_that_fits(
    cli: Cli, models: Path, model: str, config: d2f.DecodeConfig
) -> None:
    status, out, err = cli("--model", model, "--prompt", PROMPT, "--max-new-tokens", "20")
    trace = expected(models, model, config)
    assert (status, out) == (0, trace.text + "\n")
    assert err.startswith(f"{trace.header.decoder}, {model}: {trace.tokens} tokens in ")
    assert "; attention sdpa, eager, " in err
    assert len(err.splitlines()) == 1
    assert d2f.generate.__module__ == "d2f.decode"


def test_catalogue_models_take_the_settings_of_their_pair(cli: Cli) -> None:
    arguments = ("--model", "mini-d2f", "--prompt", PROMPT, "--json")
    _, out, _ = cli(*arguments)
    assert json.loads(out)["config"] == config_to_dict(PAIRS["mini"].config)
    changed = ("--block-size", "32", "--max-active-blocks", "none", "--early-stop", "false")
    _, out, _ = cli(*arguments, *changed, "--max-new-tokens", "8")
    changes = {"max_active_blocks": None, "early_stop": False, "max_new_tokens": 8}
    config = replace(PAIRS["mini"].config, block_size=32, **changes)
    assert json.loads(out)["config"] == config_to_dict(config)
    changed = ("--rule", "entropy-bound", "--entropy-bound", "0.3", "--max-new-tokens", "8")
    _, out, _ = cli(*arguments, *changed)
    changes = {"rule": "entropy-bound", "entropy_bound": 0.3, "max_new_tokens": 8}
    assert json.loads(out)["config"] == config_to_dict(replace(PAIRS["mini"].config, **changes))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_prompt_from_stdin(
    cli: Cli, models: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str
) -> None:
    given = io.BytesIO(f"{PROMPT}{end}".encode(encoding))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given))
    status, out, _ = cli("--model", "mini-ar", "--prompt", "-", "--max-new-tokens", "4")
    assert (status, out) == (0, expected(models, "mini-ar", ARConfig(max_new_tokens=4)).text + "\n")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (b"", "the prompt is empty"),
        (b"\xef\xbb\xbf \r\n", "the prompt is empty"),
        ("Tom".encode("utf-16-le"), "the text holds the control character U+0000; remove it"),
        (b"Tom\0", "the text holds the control character U+0000; remove it"),
        (
            "caf\u00e9".encode("latin-1"),
            "the prompt cannot be read: it is no text in UTF-8: save it as UTF-8",
        ),
    ],
)
def test_a_prompt_file_that_is_no_text_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, given: bytes, complaint: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    outcome = cli("--model", "mini-ar", "--prompt", "-", "--max-new-tokens", "4")
    assert outcome == (2, "", f"d2f generate: {complaint}\n")


@pytest.mark.parametrize("given", [b"\xef\xbb\xbfTom\r\nhas", b"Tom\nhas\n", b"Tom\x0bhas"])
def test_line_ends_and_marks_of_other_systems_change_no_prompt(
    cli: Cli, models: Path, monkeypatch: pytest.MonkeyPatch, given: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    asked = ("--model", "mini-ar", "--max-new-tokens", "4")
    assert cli(*asked, "--prompt", "-")[:2] == cli(*asked, "--prompt", "Tom\nhas")[:2]


def test_trace_holds_the_run(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    _, out, _ = cli(
        *("--model", "mini-d2f", "--prompt", PROMPT, "--max-new-tokens", "20"),
        *("--json", "--trace", str(path)),
    )
    trace, answer = Trace.from_json(path.read_text()), json.loads(out)
    assert {name: answer[name] for name in trace.metrics} == trace.metrics
    assert (list(trace.token_ids), trace.text) == (answer["token_ids"], answer["text"])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "none"], "no model 'none'"),
        (["--model", "mini-ar", "--tau-conf", "0.5"], "decoder 'ar' has no setting 'tau_conf'"),
        (["--model", "mini-ar", "--decoder", "d2f"], "needs a diffusion model"),
        (["--model", "mini-d2f", "--decoder", "ar"], "needs a causal model"),
        (["--model", "mini-d2f", "--tau-conf", "1.5"], "tau_conf must be in [0, 1], got 1.5"),
        (["--model", "mini-d2f", "--tau-conf", "high"], "tau_conf must be a number, got 'high'"),
        (["--model", "mini-d2f", "--block-size", "1.5"], "block_size must be an integer"),
        (["--model", "mini-d2f", "--early-stop", "0"], "early_stop must be true or false"),
        (["--model", "mini-d2f", "--max-active-blocks", "x"], "an integer or none, got 'x'"),
        (["--model", "mini-d2f", "--rule", "luck"], "rule must be one of confidence, entropy, "),
        (["--model", "mini-d2f", "--max-kl", "-1"], "max_kl must be in [0, 1000], got -1.0"),
        (["--model", "mini-ar", "--rule", "klass"], "decoder 'ar' has no setting 'rule'"),
        (["--model", "mini-ar", "--max-new-tokens", "9999"], "exceed the model's context"),
        (["--model", "mini-ar", "--prompt", " \n"], "the prompt is empty"),
        (["--model", "mini-ar", "--prompt", "a <|end|>"], "special token '<|end|>'"),
        (["--model", "mini-ar", "--prompt", "a \udcff"], "it is no text in UTF-8"),
        (["--model", "mini-ar", "--adapter", "nowhere"], "adapter_config.json is missing"),
        (["--model", "mini-ar", "--device", "abacus"], "abacus"),
        (["--model", "mini-ar", "--attention", "flash"], "attention 'flash' needs a CUDA GPU"),
        (["--model", "mini-ar", "--attention", "fast"], "invalid choice: 'fast'"),
        (["--model", "mini-ar", "--quantize", "int2"], "invalid choice: 'int2'"),
        (["--model", "mini-ar", "--trace", "nowhere/run.json"], "--trace must be a file"),
        (["--model", "mini-ar", "--tau", "0.5"], "unrecognized arguments: --tau 0.5"),
        (["--prompt", "Hello"], "required: --model"),
    ],
)
def test_bad_input_is_one_line_and_status_2(cli: Cli, arguments: list[str], complaint: str) -> None:
    given = arguments if "--prompt" in arguments else [*arguments, "--prompt", PROMPT]
    status, out, err = cli(*given)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert complaint in err


def test_a_published_model_that_does_not_fit_is_told_before_anything_else(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.checkpoints.plan.free_memory", lambda device: 8_000_000_000)
    name = "d2f-dream-7b-instruct"
    status, out, err = cli("--model", name, "--prompt", PROMPT, "--dtype", "bfloat16")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert f"{name} needs about 16 GB of memory in bfloat16, and 8.0 GB are free" in err


@contextmanager
def long_run(models: Path, trace: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of some seconds whose text grows token by token."""
    arguments = ("--model", str(models / "mini-dllm"), "--prompt", PROMPT, "--trace", str(trace))
    with subprocess.Popen(
        command(*arguments, "--block-size", "1", "--max-new-tokens", "700"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as run:
        yield run


def test_interrupted_run_keeps_its_trace(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with long_run(models, path) as run:
        assert run.stdout is not None
        first = run.stdout.read(1)
        run.send_signal(signal.SIGINT)
        rest, err = run.communicate(timeout=30)
    assert run.returncode == 130
    trace = Trace.from_json(path.read_text())
    assert trace.finish_reason is None and 0 < trace.tokens < 700
    assert (first + rest).decode() == trace.text + "\n"
    assert b"interrupted" in err and b"Traceback" not in err


def test_closed_reader_ends_the_run_and_keeps_its_trace(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with long_run(models, path) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.read(1)
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 1
    assert 0 < Trace.from_json(path.read_text()).tokens < 700
