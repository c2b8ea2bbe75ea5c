"""The catalogue: what is published, which pairs race, and whether they can here."""

import re
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import pytest
from folders import save_folder

from d2f import load_model
from d2f.catalogue.pairs import (
    DOWNLOAD,
    EMBEDDED,
    GATED,
    MEMORY,
    OPEN_PARTNER,
    PAIRS,
    PUBLISHED_PAIRS,
    READY,
    Here,
    PairState,
    against,
    catalogue_decoder,
    default_config,
    embedded_models,
    made_for,
    model_folder,
    model_name,
    pair_memory,
    pair_repos,
    pair_state,
    published_needs,
)
from d2f.catalogue.published import PUBLISHED
from d2f.catalogue.sizes import ALLOWANCE, gigabytes
from d2f.checkpoints.resolve import find_shape
from d2f.config import CONFIGS, ARConfig, D2FConfig, VanillaConfig
from d2f.errors import InvalidInput

GB = 1_000_000_000
LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"


def test_published_pairs_race_published_models_and_leave_the_embedded_alone() -> None:
    assert list(PUBLISHED_PAIRS)[:6] == [
        *("llada", "dream-base", "dream", "diffucoder", "coder-0.5b", "a2d-0.6b")
    ]
    assert not PUBLISHED_PAIRS.keys() & (PAIRS.keys() | PUBLISHED.keys())
    assert not PUBLISHED.keys() & set(embedded_models())
    for pair in PUBLISHED_PAIRS.values():
        model = PUBLISHED[pair.d2f]
        assert (model.decoder, pair.ar) == ("d2f", model.partner)
        assert PUBLISHED[pair.ar].decoder == "ar"
        assert pair.config in model.presets.values()
        # A model of blocks is no adapter's, and sees no canvas whole.
        assert (model.adapter is None) == (pair.dllm is None) == (pair.config.grid != "prompt")
        if pair.dllm is not None:
            teacher = PUBLISHED[pair.dllm]
            assert (teacher.repo, teacher.adapter) == (model.repo, None)


def test_a_models_presets_are_on_its_own_grid() -> None:
    for model in PUBLISHED.values():
        for preset in model.presets.values():
            assert isinstance(preset, CONFIGS[model.decoder])
            grid = model.diffusion.grid or "prompt"
            assert getattr(preset, "grid", "prompt") == grid
            assert getattr(preset, "max_active_blocks", None) or grid == "prompt"


def test_models_in_no_pair_have_their_own_decoder_and_preset() -> None:
    both = PAIRS | PUBLISHED_PAIRS
    assert made_for("dparallel-dream-7b-instruct", both) == "vanilla"
    assert made_for("qwen3-14b", both) == "ar"
    assert made_for("mini-d2f", both) == "d2f"
    assert made_for("my-model", both) is None
    config = default_config("dparallel-dream-7b-instruct", "vanilla", both)
    assert isinstance(config, VanillaConfig)
    assert (config.rule, config.tau_conf) == ("confidence", 0.5)


def test_names_are_their_own_and_partners_exist() -> None:
    assert [model.name for model in PUBLISHED.values()] == list(PUBLISHED)
    for model in PUBLISHED.values():
        assert model.partner is None or model.partner in PUBLISHED
        assert model.presets or model.adapter is None
        assert model.decoder in CONFIGS


def test_base_models_are_pinned_and_adapters_say_that_they_are_not() -> None:
    for model in PUBLISHED.values():
        assert len(model.repo.revision) == 40 or model.repo.revision == "main"
        assert model.adapter is None or model.adapter.repo.revision == "main"


def test_the_papers_settings() -> None:
    """Table 8."""
    llada = PUBLISHED["d2f-llada-8b-instruct"].presets
    dream = PUBLISHED["d2f-dream-7b-base"].presets
    table = {
        name: (preset.max_new_tokens, preset.block_size, preset.tau_add, preset.tau_conf)
        for name, preset in llada.items()
    }
    assert table == {
        "gsm8k": (512, 64, 0.7, 0.9),
        "mbpp": (512, 32, 0.9, 0.9),
        "math": (512, 32, 0.1, 0.9),
        "humaneval": (512, 32, 0.1, 0.9),
    }
    table = {
        name: (preset.max_new_tokens, preset.block_size, preset.tau_add, preset.tau_conf)
        for name, preset in dream.items()
    }
    assert table == {
        "gsm8k": (256, 32, 0.1, 0.9),
        "mbpp": (240, 48, 0.1, 0.9),
        "math": (256, 64, 0.1, 0.9),
        "humaneval": (256, 32, 0.9, 0.95),
    }
    assert {preset.tau_act for preset in [*llada.values(), *dream.values()]} == {0.95}


def test_published_models_have_defaults_only_where_they_are_asked_for() -> None:
    both = PAIRS | PUBLISHED_PAIRS
    assert catalogue_decoder("d2f-llada-8b-instruct") is None
    assert catalogue_decoder("d2f-llada-8b-instruct", both) == "d2f"
    assert catalogue_decoder("qwen2.5-7b", both) == "ar"
    assert catalogue_decoder("dream-7b-base", both) == "vanilla"
    assert default_config("d2f-dream-7b-base", pairs=both) == D2FConfig(max_new_tokens=256)
    assert default_config("qwen2.5-7b", pairs=both) == ARConfig(max_new_tokens=256)
    assert default_config("llada-8b-instruct", pairs=both) == VanillaConfig(block_size=32)
    with pytest.raises(ValueError, match="in no pair"):
        default_config("d2f-llada-8b-instruct")


def test_what_a_pair_takes() -> None:
    llada = PUBLISHED_PAIRS["llada"]
    assert {repo.id: gigabytes(size) for repo, size in pair_repos(llada).items()} == {
        "GSAI-ML/LLaDA-8B-Instruct": "16 GB",
        "SJTU-Deng-Lab/D2F_LLaDA_Instruct_8B_Lora": "0.1 GB",
        LLAMA: "16 GB",
    }
    lanes = [PUBLISHED[name].shape.memory("bfloat16") for name in (llada.d2f, llada.ar)]
    assert pair_memory(llada) == sum(lanes) + ALLOWANCE
    assert gigabytes(pair_memory(llada)) == "36 GB"
    assert gigabytes(pair_memory(PUBLISHED_PAIRS["dream"])) == "32 GB"
    assert pair_memory(PAIRS["mini"]) == 0
    assert pair_repos(PAIRS["mini"]) == {}


def test_the_table_of_needs_is_the_pickers_arithmetic() -> None:
    table = {(need.pair, need.weights): need.total for need in published_needs()}
    named = [name for pair, _ in table for name in re.findall("`([^`]+)`", pair)]
    assert sorted(named) == sorted([*PUBLISHED_PAIRS] * 3)
    qwen = "`dream-base`, `dream`, `diffucoder`, `fast-dllm-7b`"
    for label, name in (("`llada` (gated)", "llada"), (qwen, "dream")):
        pair = PUBLISHED_PAIRS[name]
        assert table[label, "bfloat16"] == pair_memory(pair)
        assert table[label, "int8"] == pair_memory(pair, "int8")
        assert table[label, "int4"] == pair_memory(pair, "int4")


LLADA, DREAM = PUBLISHED_PAIRS["llada"], PUBLISHED_PAIRS["dream"]
EVERY = frozenset(repo.id for repo in pair_repos(LLADA))


def on_80_gb(repos: Container[str] = (), token: bool = False) -> Here:
    return Here(free=80 * GB, repos=repos, token=token)


@pytest.mark.parametrize(
    ("device", "free", "text"),
    [
        ("cuda", 0, "needs a GPU with 36 GB free; there is none here"),
        (
            "cuda",
            24 * GB,
            "needs a GPU with 36 GB free; this one has 24 GB, enough with --quantize int8 (22 GB)",
        ),
        (
            "cuda:1",
            16 * GB,
            "needs a GPU with 36 GB free; this one has 16 GB, enough with --quantize int4 (15 GB)",
        ),
        ("cuda", 12 * GB, "needs a GPU with 36 GB free; this one has 12 GB"),
        ("cpu", 8 * GB, "needs 36 GB of free memory, best a GPU's; the CPU has 8.0 GB"),
    ],
)
def test_a_pair_that_does_not_fit_says_what_would(device: str, free: int, text: str) -> None:
    here = Here(device=device, free=free, token=True, repos=EVERY)
    assert pair_state(LLADA, here) == PairState(MEMORY, text)


def test_the_state_of_a_pair() -> None:
    assert pair_state(PAIRS["mini"], Here()).kind == READY
    state = pair_state(LLADA, on_80_gb())
    assert state.kind == GATED
    assert state.text == (
        f"gated: accept the licence at https://huggingface.co/{LLAMA}, then 'hf auth login'; "
        "or race an open model: python app.py --pair llada --ar qwen2.5-7b-instruct"
    )
    assert not PUBLISHED[OPEN_PARTNER].repo.gated
    state = pair_state(LLADA, on_80_gb({LLAMA}))
    assert (state.kind, state.text) == (
        DOWNLOAD,
        "needs a download of 16 GB: python -m d2f models --download llada",
    )
    assert pair_state(LLADA, on_80_gb(token=True)).kind == DOWNLOAD
    assert pair_state(LLADA, on_80_gb(EVERY)).kind == READY
    assert pair_state(DREAM, on_80_gb()).text.startswith("needs a download of 31 GB")
    mixed = replace(PAIRS["mini"], ar="qwen2.5-7b")
    assert pair_state(mixed, Here()).kind == MEMORY


def test_memory_is_that_of_the_weights_the_dtype_and_the_files_at_hand() -> None:
    exactly = pair_memory(LLADA)
    for free, kind in ((exactly, READY), (exactly - 1, MEMORY), (None, READY)):
        assert pair_state(LLADA, Here(free=free, repos=EVERY)).kind == kind
    small = Here(free=pair_memory(LLADA, "int8"), repos=EVERY)
    assert pair_state(LLADA, small, "int8").kind == READY
    assert pair_memory(LLADA, dtype="float32") > 1.9 * exactly
    assert pair_state(LLADA, Here(free=exactly, repos=EVERY), None, "float32").kind == MEMORY
    shape = replace(PUBLISHED[LLADA.d2f].shape, num_layers=16)
    less = pair_memory(LLADA, shapes={LLADA.d2f: shape})
    assert exactly - less == PUBLISHED[LLADA.d2f].shape.memory("bfloat16") - shape.memory(
        "bfloat16"
    )
    here = Here(free=less, repos=EVERY, shapes={LLADA.d2f: shape})
    assert pair_state(LLADA, here).kind == READY


def test_a_lane_elsewhere_needs_nothing_here() -> None:
    alone = pair_memory(LLADA, decoders=["d2f"])
    assert alone == PUBLISHED[LLADA.d2f].shape.memory("bfloat16") + ALLOWANCE
    state = pair_state(LLADA, Here(free=alone), decoders=["d2f"])
    assert state.text.endswith("16 GB: python -m d2f models --download d2f-llada-8b-instruct")
    assert (
        pair_state(LLADA, Here(free=alone, repos=EVERY - {LLAMA}), decoders=["d2f"]).kind == READY
    )
    assert pair_state(LLADA, Here(), decoders=[]).kind == READY


def test_a_model_with_a_folder_of_its_own_needs_no_download() -> None:
    here = replace(on_80_gb(EVERY - {LLAMA}), folders={"llama-3-8b-instruct"})
    assert pair_state(LLADA, here).kind == READY
    assert pair_state(LLADA, replace(here, folders=())).kind == GATED


def test_another_ar_model_can_race() -> None:
    pair = against(LLADA, "qwen2.5-7b-instruct")
    assert pair.name == "llada-qwen2.5-7b-instruct"
    assert pair.title == "d2f-llada-8b-instruct against qwen2.5-7b-instruct"
    assert pair.lanes["ar"] == ("qwen2.5-7b-instruct", ARConfig(max_new_tokens=512))
    assert (pair.d2f, pair.config, pair.dllm) == (LLADA.d2f, LLADA.config, LLADA.dllm)
    assert pair_state(pair, on_80_gb()).text == (
        "needs a download of 31 GB: python -m d2f models "
        "--download d2f-llada-8b-instruct qwen2.5-7b-instruct"
    )
    assert against(LLADA, "llama-3-8b-instruct") is LLADA
    with pytest.raises(ValueError, match="AR model must be one of .*'mini-ar'.* got 'mini-d2f'"):
        against(LLADA, "mini-d2f")


@pytest.fixture
def shadow(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``mini-d2f`` of one's own, in the home and working folder."""
    folder = tmp_path / "mini-d2f"
    save_folder(folder, tokenizer_folder, [4], mask_id=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.mark.parametrize(
    "typed",
    [
        "./mini-d2f",
        "mini-d2f/",
        "{}/mini-d2f",
        "~/mini-d2f",
        "mini-d2f/../mini-d2f",
        Path("mini-d2f"),
        Path("./mini-d2f"),
    ],
    ids=str,
)
def test_a_path_is_the_folder_whatever_the_catalogue_calls_by_its_name(
    typed: str | Path, shadow: Path
) -> None:
    typed = typed.format(shadow.parent) if isinstance(typed, str) else typed
    assert model_folder(typed).resolve() == shadow
    assert model_name(typed) == "mini-d2f"
    model = load_model(typed)
    assert (model.name, model.config.hidden_size) == ("mini-d2f", 48)
    assert find_shape(typed).hidden_size == 48


@pytest.mark.parametrize("typed", [".", "", "..", "../mini-d2f", "../mini-d2f/."])
def test_a_folder_is_called_by_its_own_name_from_within(
    typed: str, shadow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shadow / "below").mkdir()
    monkeypatch.chdir(shadow / "below" if typed == ".." else shadow)
    if not typed:
        with pytest.raises(InvalidInput, match="needs a name or a folder, got ''"):
            load_model(typed)
        with pytest.raises(InvalidInput, match="needs a name or a folder, got ''"):
            load_model(".", adapter=typed)
    else:
        assert load_model(typed).name == "mini-d2f"


def test_a_bare_name_is_the_catalogues(shadow: Path) -> None:
    assert model_folder("mini-d2f") == EMBEDDED / "mini-d2f"
    assert find_shape("llada-8b-instruct") == PUBLISHED["llada-8b-instruct"].shape


@pytest.mark.parametrize(
    "typed",
    ["mini-ar/", "./mini-ar", Path("mini-ar"), Path("llada-8b-instruct"), "a\0b", "x" * 999],
)
def test_a_path_without_a_model_is_no_model(typed: str | Path, shadow: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no model .* and not a folder with a config\.json"):
        load_model(typed)


def test_a_home_folder_that_nobody_knows(shadow: Path) -> None:
    with pytest.raises(InvalidInput, match="the home folder of '~no-such-user/m' is not known"):
        load_model("~no-such-user/m")
