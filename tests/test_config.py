"""Settings refuse every bad value by name, survive JSON, and belong to one decoder each."""

import json
import re
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2f.config import (
    COMMIT_RULES,
    CONFIGS,
    GRIDS,
    ARConfig,
    D2FConfig,
    DecodeConfig,
    VanillaConfig,
    config_from_dict,
    config_to_dict,
    decoder_name,
    settings_of,
    value_kinds,
)
from d2f.errors import InvalidInput
from d2f.strict_json import to_json

NAN, INFINITY = float("nan"), float("inf")
SHARED = [
    *[("max_new_tokens", value) for value in (0, -1, 1.0, 2.5, "8", None, True)],
    *[("temperature", value) for value in (-0.1, 10.1, NAN, INFINITY, "1", None, True)],
    *[("top_p", value) for value in (0, 0.0, -0.5, 1.01, NAN, "1", None, True)],
    *[("top_k", value) for value in (-1, 1.5, "1", None, False)],
    *[("seed", value) for value in (-1, 0.5, "0", None, True)],
]
COUNTS = (0, -4, 8.0, "8", True)
UNIT = (0, -0.1, 1.0001, 2, NAN, "0.5", None, True)
BAD: list[tuple[type[DecodeConfig], str, Any]] = [
    *[(kind, name, value) for kind in CONFIGS.values() for name, value in SHARED],
    *[(VanillaConfig, "tokens_per_step", value) for value in (*COUNTS, None)],
    *[(VanillaConfig, "block_size", value) for value in COUNTS],
    *[(D2FConfig, "block_size", value) for value in (*COUNTS, None)],
    *[(D2FConfig, "max_active_blocks", value) for value in COUNTS],
    *[(D2FConfig, "tau_add", value) for value in UNIT],
    *[(D2FConfig, "tau_act", value) for value in UNIT],
    *[(D2FConfig, "tau_conf", value) for value in (-0.1, 1.1, NAN, "0.9", None, True)],
    *[(D2FConfig, "early_stop", value) for value in (1, 0, None, "yes")],
    *[(D2FConfig, "grid", value) for value in ("Start", "", "zero", 0, None, True)],
    *[(D2FConfig, "rule", value) for value in ("surest", "", "Confidence", None, 1, True)],
    *[(VanillaConfig, "rule", value) for value in ("count", None)],
    *[(VanillaConfig, "max_entropy", value) for value in (-1, 21, NAN, "1", None, True)],
    *[(D2FConfig, "entropy_bound", value) for value in (-0.1, 1001, INFINITY, None)],
    *[(D2FConfig, "max_kl", value) for value in (-0.1, 1001, NAN, None)],
    *[(D2FConfig, "stable_steps", value) for value in (*COUNTS, None)],
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_a_bad_value_is_refused_by_field_and_value(
    kind: type[DecodeConfig], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {re.escape(repr(value))}$"):
        kind(**{name: value})


STRANGE = [
    *(np.array([1, 2]), np.array(3), np.True_, np.float64("nan"), torch.tensor(1)),
    *([1], {}, b"1", 1j, object, -(10**5000)),
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in CONFIGS.values() for name in settings_of(kind)],
)
def test_what_is_no_number_at_all_is_refused_by_field(
    kind: type[DecodeConfig], name: str, value: Any
) -> None:
    with pytest.raises(InvalidInput, match=rf"^{name} must be .*, got .") as raised:
        kind(**{name: value})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


@pytest.mark.parametrize("number", [np.int64, np.uint8, np.int32])
@pytest.mark.parametrize("kind", CONFIGS.values())
def test_numpys_integers_become_plain_ones(kind: type[DecodeConfig], number: Any) -> None:
    names = [name for name in settings_of(kind) if int in value_kinds(kind, name)]
    config = kind(**{name: number(8) for name in names})
    assert config == kind(**dict.fromkeys(names, 8))
    assert {type(getattr(config, name)) for name in names} == {int}


@pytest.mark.parametrize("number", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("kind", CONFIGS.values())
def test_numpys_floats_become_plain_ones(kind: type[DecodeConfig], number: Any) -> None:
    names = [name for name in settings_of(kind) if float in value_kinds(kind, name)]
    config = kind(**{name: number(0.75) for name in names})
    assert config == kind(**dict.fromkeys(names, 0.75))
    assert {type(getattr(config, name)) for name in names} == {float}
    assert config_from_dict(decoder_name(config), json.loads(to_json(asdict(config)))) == config
    with pytest.raises(InvalidInput, match=r"max_new_tokens must be an integer >= 1, got 8\.0$"):
        kind(max_new_tokens=number(8))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ARConfig, {"max_new_tokens": 1, "temperature": 0, "top_p": 1, "top_k": 0, "seed": 0}),
        (ARConfig, {"temperature": 10, "top_p": 1e-9, "top_k": 10**6, "seed": 2**40}),
        (VanillaConfig, {"tokens_per_step": 1, "block_size": None}),
        (VanillaConfig, {"tokens_per_step": 9, "block_size": 1}),
        (D2FConfig, {"block_size": 1, "tau_add": 1, "tau_act": 1, "tau_conf": 1}),
        (D2FConfig, {"tau_add": 1e-9, "tau_act": 1e-9, "tau_conf": 0}),
        (D2FConfig, {"max_active_blocks": 1, "early_stop": False}),
        (D2FConfig, {"max_active_blocks": None, "early_stop": True}),
        *[(D2FConfig, {"grid": grid}) for grid in GRIDS],
    ],
)
def test_the_edges_of_every_range_are_accepted(
    kind: type[DecodeConfig], values: dict[str, Any]
) -> None:
    assert config_to_dict(kind(**values)).items() >= values.items()


def test_the_defaults_are_the_papers() -> None:
    assert config_to_dict(D2FConfig()) == {
        "max_new_tokens": 512,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": 0,
        "block_size": 32,
        "tau_add": 0.1,
        "tau_act": 0.95,
        "tau_conf": 0.9,
        "max_active_blocks": None,
        "early_stop": True,
        "grid": "prompt",
        "rule": "confidence",
        "max_entropy": 0.4,
        "entropy_bound": 0.1,
        "max_kl": 0.01,
        "stable_steps": 1,
    }
    assert VanillaConfig().rule == "best"
    assert VanillaConfig().tokens_per_step == 1
    assert VanillaConfig().block_size is None


@pytest.mark.parametrize("kind", CONFIGS.values())
def test_settings_are_frozen_and_by_name_only(kind: type[DecodeConfig]) -> None:
    with pytest.raises(FrozenInstanceError):
        kind().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        kind(8)  # type: ignore[misc]
    with pytest.raises(TypeError, match="skip_threshold"):
        kind(skip_threshold=0.9)  # type: ignore[call-arg]


def test_each_config_names_its_decoder() -> None:
    names = [decoder_name(kind()) for kind in (D2FConfig, ARConfig, VanillaConfig)]
    assert names == ["d2f", "ar", "vanilla"]


@pytest.mark.parametrize("stranger", [None, {}, "d2f", D2FConfig])
def test_what_is_no_config_names_no_decoder(stranger: Any) -> None:
    with pytest.raises(ValueError, match=r"config must be one of \['ar', 'd2f', .*'vanilla'\]"):
        decoder_name(stranger)


def configs() -> st.SearchStrategy[DecodeConfig]:
    """Any valid settings of any decoder."""
    shared = {
        "max_new_tokens": st.integers(1, 4096),
        "temperature": st.floats(0, 10),
        "top_p": st.floats(0, 1, exclude_min=True),
        "top_k": st.integers(0, 1000),
        "seed": st.integers(0, 2**53),
    }
    unit = st.floats(0, 1, exclude_min=True)
    ruled = shared | {
        "rule": st.sampled_from(COMMIT_RULES),
        "tau_conf": st.floats(0, 1),
        "max_entropy": st.floats(0, 20),
        "entropy_bound": st.floats(0, 1000),
        "max_kl": st.floats(0, 1000),
        "stable_steps": st.integers(1, 64),
    }
    return st.one_of(
        st.builds(ARConfig, **shared),
        st.builds(
            VanillaConfig,
            **ruled,
            tokens_per_step=st.integers(1, 64),
            block_size=st.none() | st.integers(1, 512),
        ),
        st.builds(
            D2FConfig,
            **ruled,
            block_size=st.integers(1, 512),
            tau_add=unit,
            tau_act=unit,
            max_active_blocks=st.none() | st.integers(1, 64),
            early_stop=st.booleans(),
            grid=st.sampled_from(GRIDS),
        ),
    )


@given(config=configs())
def test_settings_survive_json_exactly(config: DecodeConfig) -> None:
    text = json.dumps(config_to_dict(config))
    assert config_from_dict(decoder_name(config), json.loads(text)) == config


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="decoder must be one of .*, got 'eagle'"):
        config_from_dict("eagle", {})


@pytest.mark.parametrize("decoder", CONFIGS)
def test_unknown_settings_are_refused_by_name(decoder: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown {decoder} settings \['skip_threshold', 'x'\]"):
        config_from_dict(decoder, {"x": 1, "seed": 3, "skip_threshold": 0.9})


def test_settings_of_another_decoder_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown ar settings \['tau_conf'\]"):
        config_from_dict("ar", {"tau_conf": 0.9})


def test_bad_values_in_json_are_refused_too() -> None:
    with pytest.raises(ValueError, match=r"tau_conf must be in \[0, 1\], got 7"):
        config_from_dict("d2f", {"tau_conf": 7})
