"""``python -m d2f models``: the catalogue on a terminal and as JSON, and downloads."""

import json
from pathlib import Path

import pytest

from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS, embedded_models
from d2f.catalogue.published import PUBLISHED
from d2f.cli.models import main
from d2f.errors import HubError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no token, and of all repositories only Qwen2.5-7B downloaded."""
    here = {"Qwen/Qwen2.5-7B": Path("/cache/qwen")}
    monkeypatch.setattr("d2f.cli.models.cached", lambda repo, revision: here.get(repo))
    monkeypatch.setattr("d2f.cli.models.has_token", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_the_table_names_every_model_and_pair(capsys: Capture) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    lines = {line.split("  ")[0].strip(): line for line in out.splitlines()}
    assert set(PUBLISHED) | set(PAIRS) | set(PUBLISHED_PAIRS) <= lines.keys()
    assert all(name in out for name in embedded_models())
    llada = lines["d2f-llada-8b-instruct"]
    assert "8.02 B" in llada and "GSAI-ML/LLaDA-8B-Instruct@08b83a6f + " in llada
    assert "D2F_LLaDA_Instruct_8B_Lora@main" in llada
    assert " gated " in lines["llama-3-8b-instruct"] and " open " in llada
    assert " yes " in lines["qwen2.5-7b"] and " no " in llada
    assert "needs a GPU with 36 GB free; there is none here" in lines["llada"]
    assert lines["mini"].split()[1:3] == ["-", "ready"]


def test_json_holds_the_same(capsys: Capture) -> None:
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["published"]] == list(PUBLISHED)
    assert [row["name"] for row in found["pairs"]] == [*PAIRS, *PUBLISHED_PAIRS]
    assert {row["name"]: row["state"] for row in found["pairs"]} == {
        "mini": "ready",
        "llada": "memory",
        "dream-base": "memory",
        "dream": "memory",
    }
    dream = next(row for row in found["published"] if row["name"] == "d2f-dream-7b-base")
    assert dream["parameters"] == 7_615_616_512
    assert (dream["decoder"], dream["partner"]) == ("d2f", "qwen2.5-7b")
    assert dream["presets"] == ["gsm8k", "humaneval", "math", "mbpp"]


def test_a_pair_is_downloaded_the_likeliest_failure_first(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def snapshot(repo: str, revision: str) -> Path:
        asked.append((repo, revision))
        return Path("/cache") / repo

    monkeypatch.setattr("d2f.cli.models.snapshot", snapshot)
    assert main(["--download", "llada"]) == 0
    out = capsys.readouterr().out
    assert [repo for repo, _ in asked] == [
        "SJTU-Deng-Lab/D2F_LLaDA_Instruct_8B_Lora",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "GSAI-ML/LLaDA-8B-Instruct",
    ]
    assert out.splitlines() == [f"/cache/{repo}" for repo, _ in asked]
    asked.clear()
    assert main(["--download", "dream-7b-instruct", "--json"]) == 0
    assert asked == [("Dream-org/Dream-v0-Instruct-7B", "05334cb9faaf763692dcf9d8737c642be2b2a6ae")]
    assert json.loads(capsys.readouterr().out) == {"folders": [f"/cache/{asked[0][0]}"]}
    asked.clear()
    assert main(["--download", "d2f-dream-7b-base", "qwen2.5-7b", "qwen2.5-7b"]) == 0
    assert [repo for repo, _ in asked] == [
        "SJTU-Deng-Lab/D2F_Dream_Base_7B_Lora",
        "Dream-org/Dream-v0-Base-7B",
        "Qwen/Qwen2.5-7B",
    ]


def test_what_cannot_be_had_is_one_line_and_status_2(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot(repo: str, revision: str) -> Path:
        raise HubError(f"{repo} is gated")

    monkeypatch.setattr("d2f.cli.models.snapshot", snapshot)
    assert main(["--download", "qwen2.5-7b"]) == 2
    assert capsys.readouterr().err == "d2f models: Qwen/Qwen2.5-7B is gated\n"
    assert main(["--download", "mini"]) == 2
    assert "--download must be of" in capsys.readouterr().err
