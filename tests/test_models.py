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
    assert main(["--device", "cuda"]) == 0
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
    assert lines["mini"].split()[1] == "-" and lines["mini"].endswith("  ready")


def test_json_holds_the_same(capsys: Capture) -> None:
    assert main(["--json", "--device", "cuda"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["published"]] == list(PUBLISHED)
    assert [row["name"] for row in found["pairs"]] == [*PAIRS, *PUBLISHED_PAIRS]
    states = {"mini": "ready"} | dict.fromkeys(PUBLISHED_PAIRS, "memory")
    assert {row["name"]: row["state"] for row in found["pairs"]} == states
    dream = next(row for row in found["published"] if row["name"] == "d2f-dream-7b-base")
    assert dream["parameters"] == 7_615_616_512
    assert (dream["decoder"], dream["partner"]) == ("d2f", "qwen2.5-7b")
    assert dream["presets"] == ["gsm8k", "humaneval", "math", "mbpp"]


def test_pairs_stand_by_what_this_machine_can_do_with_them(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU with 8 GB free and 20 GB/s: the laptop pairs fit, and what to expect is told."""
    monkeypatch.setattr("d2f.cli.models.free_memory", lambda device: 8_000_000_000)
    monkeypatch.setattr("d2f.cli.models.memory_bandwidth", lambda: 20e9)
    assert main([]) == 0
    out = capsys.readouterr().out
    ready, rest = out.split("Ready to run here:\n")[1].split("Fit here, and need a download:\n")
    fit, large = rest.split("Need more memory than is free here:\n")
    assert [line.split()[0] for line in ready.splitlines()[2:] if line] == ["mini"]
    assert [line.split()[0] for line in fit.splitlines()[2:] if line] == [
        *("coder-0.5b", "a2d-0.6b", "fast-dllm-1.5b")
    ]
    assert (
        "runs here on the CPU, AR at about 20 tokens/s expected from its memory bandwidth; "
        "needs a download of 2.0 GB: python -m d2f models --download coder-0.5b"
    ) in fit
    assert "the CPU has 8.0 GB" in large and "sdar-1.7b" in large


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
