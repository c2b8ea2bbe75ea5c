"""The page's program: its options, and what it says at the start."""

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from folders import save_models
from gradio import http_server
from hubcache import use_cache, write_cache
from huggingface_hub import constants
from processes import children, command, running
from servers import free_port

from app.launch import race_store, serve
from app.options import parse_args, with_rivals
from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS
from d2f.errors import D2FError, InvalidInput

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


@pytest.mark.parametrize(("number", "hangs"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
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


def started(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a program says that does not get as far as its page."""
    return subprocess.run(
        [sys.executable, "app.py", *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = started("--port", str(port))
    assert told.stderr == f"app.py: port {port} is taken: choose another with --port N\n"
    assert (told.returncode, told.stdout) == (2, "")


# Gradio leaves a socket open for every port that is taken.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_page_without_a_free_port_says_so(monkeypatch: pytest.MonkeyPatch):
    async def serving() -> None:  # Gradio leaks a loop where none is running
        with gr.Blocks(analytics_enabled=False) as page:
            pass
        serve(page, parse_args([], {}))

    before = signal.getsignal(signal.SIGTERM)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(http_server, "INITIAL_PORT_VALUE", taken.getsockname()[1])
        monkeypatch.setattr(http_server, "TRY_NUM_PORTS", 1)
        with pytest.raises(InvalidInput, match="^no port is free: choose one with --port N$"):
            asyncio.run(serving())
    gc.collect()
    signal.signal(signal.SIGTERM, before)


def test_a_proxy_that_cannot_be_used_is_told_in_one_line():
    told = started(ALL_PROXY="socks://127.0.0.1:7891/")
    assert told.stderr.startswith("app.py: ALL_PROXY is no address of a proxy")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_ctrl_c_while_it_loads_is_quiet(seconds: float, tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "app.py", "--port", str(free_port())],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as program:
        time.sleep(seconds)
        program.send_signal(signal.SIGINT)
        assert program.communicate()[0] == b""
    assert program.returncode == 130 and list(tmp_path.iterdir()) == []


def test_without_a_home_the_page_starts_and_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.path.expanduser("~/.cache/huggingface/hub"))
    assert parse_args([], {}).pair == "mini" and race_store(None) is None
    off = "* Publish is off: There is no home folder for it: HOME is not set."
    assert capsys.readouterr().out == f"{off} Choose another place with --store.\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "192.0.2.1"], "--host: '192.0.2.1' is no address of this machine"),
        (["--host", "no such host"], "--host: 'no such host' is no address of this machine"),
        (["--host", "a" * 70], f"--host: '{'a' * 70}' is no address of this machine"),
        (["--device", "cpud"], "device 'cpud' is none that torch knows"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--models-dir", "nowhere"], "--models-dir: there is no folder nowhere"),
        (["--ar", "mini-d2f"], "the AR model must be one of"),
    ],
)
def test_what_this_machine_does_not_have_is_refused(options: list[str], told: str):
    with pytest.raises(D2FError) as error:
        parse_args(options, {})
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--port", "0"], "argument --port: must be 1 to 65535, got '0'"),
        (["--port", "65536"], "argument --port: must be 1 to 65535, got '65536'"),
        (["--port", "-1"], "argument --port: must be 1 to 65535, got '-1'"),
        (["--port", "7.5"], "argument --port: must be 1 to 65535, got '7.5'"),
        (["--port", "²"], "argument --port: must be 1 to 65535, got '²'"),
        (["--auth", "me"], "argument --auth: must be USER:PASSWORD"),
        (["--auth", ":secret"], "argument --auth: must be USER:PASSWORD"),
        (["--auth", "me:"], "argument --auth: must be USER:PASSWORD"),
        (["--pair", "maxi"], "argument --pair: must be one of ['a2d-0.6b', "),
        (["--por", "7860"], "unrecognized arguments: --por 7860"),
    ],
)
def test_a_malformed_option_is_told_in_one_line(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        parse_args(options, {})
    said = capsys.readouterr().err
    assert said.startswith(f"app.py: {told}") and said.count("\n") == 1


@pytest.mark.parametrize(("name", "value"), [("GRADIO_SERVER_PORT", "http"), ("D2F_PAIR", "maxi")])
def test_a_malformed_variable_is_told_as_its_option(
    name: str, value: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="2"):
        parse_args([], {name: value})
    assert f"got '{value}'; so must the variable {name} (--help" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_have_brackets(host: str):
    assert parse_args(["--host", host], {}).host == "::1"


def test_a_password_may_hold_colons():
    assert parse_args(["--auth", "me:a:b"], {}).auth == ("me", "a:b")


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


def test_a_folder_of_models_must_hold_one_of_the_catalogue(tmp_path: Path, tokenizer_folder: Path):
    with pytest.raises(InvalidInput, match="no model of the catalogue has a folder in"):
        parse_args(["--models-dir", str(tmp_path)], {})
    save_models(tmp_path, tokenizer_folder)
    assert parse_args(["--models-dir", str(tmp_path)], {}).models_dir == tmp_path
    assert parse_args([], {}).models_dir is None


LLADA_RIVALS = (
    *("llada-ar-lookup", "llada-vanilla"),
    *("llada-fast-dllm-prefix", "llada-fast-dllm-dual"),
)


def test_a_published_pair_starts_where_it_is_downloaded(
    tmp_path: Path,
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    cache = write_cache(tmp_path, tokenizer_folder)
    use_cache(monkeypatch, cache)
    llama = "models--meta-llama--Meta-Llama-3-8B-Instruct"
    there = ("--device", "cpu", "--dtype", "bfloat16")

    def refused(*options: str) -> str:
        with pytest.raises(D2FError) as error:
            parse_args([*options, *there], {})
        return str(error.value)

    args = parse_args(["--pair", "llada", *there], {})
    downloaded = ["llada", "dream-base", "dream"]
    assert args.pair == "llada"
    # Of the others, what is downloaded and free here decides.
    offered = [name for name in args.pairs if name not in PUBLISHED_PAIRS or name in downloaded]
    assert offered == [*with_rivals(PAIRS), *downloaded, *LLADA_RIVALS]
    assert not {PUBLISHED_PAIRS[name].title for name in downloaded} & args.refused.keys()
    assert (args.engine.device, args.engine.dtype) == ("cpu", "bfloat16")
    (cache / llama).rename(tmp_path / "llama")
    assert "--pair llada: needs a GPU" not in refused("--pair", "llada")
    assert "gated: accept the licence" in refused("--pair", "llada", "--ar-transformers")
    other = parse_args(["--pair", "llada", "--ar", "qwen2.5-7b-instruct", *there], {})
    assert other.pairs[other.pair].lanes["ar"][0] == "qwen2.5-7b-instruct"
    assert other.pair == "llada-qwen2.5-7b-instruct"
    (title,) = other.refused.keys() - args.refused.keys()
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
