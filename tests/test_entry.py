"""``app.py``: its options, and what it says at the start. Run by path: ``app`` is the package."""

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest
from folders import save_models
from hubcache import use_cache, write_cache

APP = Path(__file__).parents[1] / "app.py"


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names of the program, as a Space has them that sets its store by the environment."""

    async def run() -> dict[str, Any]:  # Gradio leaks a loop where none is running
        return runpy.run_path(str(APP))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2F_STORE", str(tmp_path_factory.mktemp("store") / "races.sqlite"))
        return asyncio.run(run())


def test_the_environment_names_the_store(entry: dict[str, Any]):
    assert Path(entry["args"].store).is_file()


def test_the_place_of_the_store_is_said(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert entry["race_store"](None).place == str(tmp_path / "d2f-race" / "races.sqlite")
    assert capsys.readouterr().out == f"* Publish keeps races in {tmp_path}/d2f-race/races.sqlite\n"
    assert entry["race_store"]("none") is None
    assert capsys.readouterr().out == "* Publish is off.\n"


def test_a_store_that_was_asked_for_must_open_and_the_usual_one_may_not(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    taken = tmp_path / "file"
    taken.write_text("no folder")
    with pytest.raises(SystemExit, match="error: store .*races: Its folder cannot be made"):
        entry["race_store"](str(taken / "races"))
    with pytest.raises(SystemExit, match="needs a token"):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        entry["race_store"]("hf://datasets/someone/races")
    monkeypatch.setenv("XDG_CACHE_HOME", str(taken))
    assert entry["race_store"](None) is None
    assert capsys.readouterr().out.startswith("* Publish is off: Its folder cannot be made")


def test_a_folder_of_models_must_hold_one_of_the_catalogue(
    entry: dict[str, Any], tmp_path: Path, tokenizer_folder: Path, capsys
):
    with pytest.raises(SystemExit):
        entry["parse_args"](["--models-dir", str(tmp_path)])
    assert "no model of the catalogue has a folder in" in capsys.readouterr().err
    save_models(tmp_path, tokenizer_folder)
    assert entry["parse_args"](["--models-dir", str(tmp_path)]).models_dir == tmp_path
    assert entry["parse_args"]([]).models_dir is None


def test_a_published_pair_starts_where_it_is_downloaded(
    entry: dict[str, Any],
    tmp_path: Path,
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
):
    cache = write_cache(tmp_path, tokenizer_folder)
    use_cache(monkeypatch, cache)
    parse, llama = entry["parse_args"], "models--meta-llama--Meta-Llama-3-8B-Instruct"
    there = ("--device", "cpu", "--dtype", "bfloat16")

    def refused(*options: str) -> str:
        with pytest.raises(SystemExit):
            parse([*options, *there])
        return capsys.readouterr().err

    args = parse(["--pair", "llada", *there])
    assert (args.pair, list(args.pairs), args.refused) == (
        "llada",
        ["mini", "llada", "dream-base", "dream"],
        {},
    )
    assert (args.engine.device, args.engine.dtype) == ("cpu", "bfloat16")
    (cache / llama).rename(tmp_path / "llama")
    assert "--pair llada: needs a GPU" not in refused("--pair", "llada")
    assert "gated: accept the licence" in refused("--pair", "llada", "--ar-transformers")
    other = parse(["--pair", "llada", "--ar", "qwen2.5-7b-instruct", *there])
    assert other.pairs[other.pair].lanes["ar"][0] == "qwen2.5-7b-instruct"
    assert other.pair == "llada-qwen2.5-7b-instruct"
    (title,) = other.refused
    assert "Meta-Llama-3-8B-Instruct" in title and "--ar qwen2.5" in other.refused[title]
    away = parse(["--pair", "llada", "--ar-url", "http://gpu:8000/v1", "--ar-model", "x", *there])
    assert away.pairs[away.pair].lanes["ar"][0] == "x"
    own = tmp_path / "own"
    own.mkdir()
    (own / "llama-3-8b-instruct").symlink_to(next((tmp_path / "llama" / "snapshots").iterdir()))
    assert parse(["--pair", "llada", "--models-dir", str(own), *there]).pair == "llada"
    assert "AR model must be one of" in refused("--pair", "llada", "--ar", "mini-d2f")
    assert "--ar is a model run here" in refused("--ar", "mini-ar", "--ar-events", "http://gpu/v1")
