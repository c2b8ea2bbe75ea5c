"""The page's program: its options, and what it says at the start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import save_models
from hubcache import use_cache, write_cache
from processes import children, command, running
from servers import free_port

from app.launch import race_store
from app.options import parse_args
from d2f.errors import InvalidInput

ROOT = Path(__file__).parents[1]
SPACES = """
import sys

print("loaded before spaces:", {"torch", "gradio"} & sys.modules.keys() or "nothing")


def GPU(duration):
    return lambda compute: compute
"""


@pytest.mark.parametrize("program", [["app.py"], ["-m", "app"]])
def test_a_lent_gpu_is_known_before_torch(program: list[str], tmp_path: Path):
    (tmp_path / "spaces.py").write_text(SPACES)
    started = subprocess.run(
        [sys.executable, *program, "--compile"],
        cwd=ROOT,
        env=os.environ | {"SPACES_ZERO_GPU": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert started.stdout == "loaded before spaces: nothing\n"
    assert started.stderr.startswith(
        "app.py: --compile: what is compiled is lost with the lent GPU"
    )
    assert started.stderr.count("\n") == 1 and started.returncode == 2


def test_what_starts_the_page_does_nothing_when_it_is_imported():
    """The models' process runs the main file once more."""
    seen = subprocess.run(
        [sys.executable, "-c", "import runpy, sys; runpy.run_path('app.py'); print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "runpy" in seen and not {"app", "d2f", "torch", "gradio"} & set(seen)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The program, once visitors can come."""
    command = [sys.executable, "app.py", "--port", str(free_port()), "--store", "none"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as program:
        for line in program.stdout:
            if "Running on local URL" in line:
                break
        yield program
        program.kill()


def models_process(page: subprocess.Popen[str]) -> int:
    (pid,) = [child for child in children(page.pid) if "spawn_main" in command(child)]
    return pid


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_page_ends_with_all_that_it_started(
    page: subprocess.Popen[str], number: signal.Signals, hangs: bool, tmp_path: Path
):
    pid = models_process(page)
    (folder,) = tmp_path.glob("d2f-race-*")
    assert os.getpriority(os.PRIO_PROCESS, page.pid) == os.getpriority(os.PRIO_PROCESS, pid) + 10
    if hangs:
        os.kill(pid, signal.SIGSTOP)
    page.send_signal(number)
    assert page.wait(20) == 0
    assert not running(pid) and not folder.exists()


def test_the_environment_names_store_pair_and_address():
    environment = {"D2F_STORE": "races", "D2F_PAIR": "mini", "GRADIO_SERVER_PORT": str(free_port())}
    args = parse_args([], environment)
    assert (args.store, args.pair, args.port) == (
        "races",
        "mini",
        int(environment["GRADIO_SERVER_PORT"]),
    )


def test_the_place_of_the_store_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert race_store(None).place == str(tmp_path / "d2f-race" / "races.sqlite")
    assert capsys.readouterr().out == f"* Publish keeps races in {tmp_path}/d2f-race/races.sqlite\n"
    assert race_store("none") is None
    assert capsys.readouterr().out == "* Publish is off.\n"


def test_a_store_that_was_asked_for_must_open_and_the_usual_one_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    taken = tmp_path / "file"
    taken.write_text("no folder")
    with pytest.raises(InvalidInput, match="store .*races: Its folder cannot be made"):
        race_store(str(taken / "races"))
    with pytest.raises(InvalidInput, match="needs a token"):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        race_store("hf://datasets/someone/races")
    monkeypatch.setenv("XDG_CACHE_HOME", str(taken))
    assert race_store(None) is None
    assert capsys.readouterr().out.startswith("* Publish is off: Its folder cannot be made")


def test_a_folder_of_models_must_hold_one_of_the_catalogue(
    tmp_path: Path, tokenizer_folder: Path, capsys
):
    with pytest.raises(SystemExit):
        parse_args(["--models-dir", str(tmp_path)], {})
    assert "no model of the catalogue has a folder in" in capsys.readouterr().err
    save_models(tmp_path, tokenizer_folder)
    assert parse_args(["--models-dir", str(tmp_path)], {}).models_dir == tmp_path
    assert parse_args([], {}).models_dir is None


def test_a_published_pair_starts_where_it_is_downloaded(
    tmp_path: Path,
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
):
    cache = write_cache(tmp_path, tokenizer_folder)
    use_cache(monkeypatch, cache)
    llama = "models--meta-llama--Meta-Llama-3-8B-Instruct"
    there = ("--device", "cpu", "--dtype", "bfloat16")

    def refused(*options: str) -> str:
        with pytest.raises(SystemExit):
            parse_args([*options, *there], {})
        return capsys.readouterr().err

    args = parse_args(["--pair", "llada", *there], {})
    assert (args.pair, list(args.pairs), args.refused) == (
        "llada",
        ["mini", "llada", "dream-base", "dream"],
        {},
    )
    assert (args.engine.device, args.engine.dtype) == ("cpu", "bfloat16")
    (cache / llama).rename(tmp_path / "llama")
    assert "--pair llada: needs a GPU" not in refused("--pair", "llada")
    assert "gated: accept the licence" in refused("--pair", "llada", "--ar-transformers")
    other = parse_args(["--pair", "llada", "--ar", "qwen2.5-7b-instruct", *there], {})
    assert other.pairs[other.pair].lanes["ar"][0] == "qwen2.5-7b-instruct"
    assert other.pair == "llada-qwen2.5-7b-instruct"
    (title,) = other.refused
    assert "Meta-Llama-3-8B-Instruct" in title and "--ar qwen2.5" in other.refused[title]
    away = parse_args(
        ["--pair", "llada", "--ar-url", "http://gpu:8000/v1", "--ar-model", "x", *there], {}
    )
    assert away.pairs[away.pair].lanes["ar"][0] == "x"
    own = tmp_path / "own"
    own.mkdir()
    (own / "llama-3-8b-instruct").symlink_to(next((tmp_path / "llama" / "snapshots").iterdir()))
    assert parse_args(["--pair", "llada", "--models-dir", str(own), *there], {}).pair == "llada"
    assert "AR model must be one of" in refused("--pair", "llada", "--ar", "mini-d2f")
    assert "--ar is a model run here" in refused("--ar", "mini-ar", "--ar-events", "http://gpu/v1")
