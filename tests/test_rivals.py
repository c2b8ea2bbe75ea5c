"""Which lanes run elsewhere is the operator's word."""

import argparse
from dataclasses import replace

import pytest

from app.lanes.remote import Server
from app.lanes.runners import (
    Transformers,
    add_options,
    chosen_runners,
    rival_pair,
    trained_lanes,
)
from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS

URL = "http://gpu:8000/v1"
KEYS = {"OPENAI_API_KEY": "theirs", "D2F_API_KEY": "ours"}


def chosen(*options: str) -> dict:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return chosen_runners(parser.parse_args(options), KEYS)


def test_each_option_names_a_runner_with_its_own_key():
    assert chosen() == {}
    assert chosen("--ar-url", URL, "--ar-model", "llama") == {
        "ar": Server(URL, "llama", key="theirs")
    }
    assert chosen("--d2f-events", URL, "--ar-events", URL) == {
        "d2f": Server(URL, protocol="events", key="ours"),
        "ar": Server(URL, protocol="events", key="ours"),
    }
    assert chosen("--ar-transformers") == {"ar": Transformers()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ar-url", URL), "go together"),
        (("--ar-model", "llama"), "go together"),
        (("--ar-events", URL, "--ar-transformers"), "exclude each other"),
        (("--ar-url", "gpu", "--ar-model", "llama"), "must begin with http"),
        (("--ar", "qwen2.5-7b", "--ar-events", URL), "--ar is a model run here"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        chosen(*options)


def test_a_pair_says_where_its_lanes_run_and_holds_no_key_in_sight():
    runners = chosen("--d2f-events", URL, "--ar-url", URL, "--ar-model", "llama")
    pair = rival_pair(PAIRS["mini"], runners)
    assert pair.name == "mini-d2f-remote-ar-remote"
    assert pair.title == (
        "mini, with D2F at gpu:8000 and AR llama at gpu:8000, timed at the client"
    )
    assert pair.lanes["ar"][0] == "llama" and pair.lanes["d2f"][0] == "mini-d2f"
    assert "ours" not in repr(pair) and "theirs" not in repr(pair)


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ((), ["D2F", "AR"]),
        (("--ar-transformers",), ["D2F", "AR"]),
        (("--ar-url", URL, "--ar-model", "mini-ar"), ["D2F"]),
        (("--ar-events", URL), ["D2F"]),
        (("--d2f-events", URL), ["AR"]),
        (("--d2f-events", URL, "--ar-events", URL), []),
    ],
)
def test_a_lane_elsewhere_is_not_taken_for_one_trained_here(options: tuple, trained: list[str]):
    runners = chosen(*options)
    pair = rival_pair(PAIRS["mini"], runners) if runners else PAIRS["mini"]
    assert trained_lanes(pair) == trained


def test_a_model_of_the_catalogue_is_not_taken_for_one_trained_here():
    rival = replace(PAIRS["mini"], ar="Qwen2.5-0.5B-Instruct")
    assert trained_lanes(rival) == ["D2F"]
    assert trained_lanes(rival_pair(rival, {"ar": Transformers()})) == ["D2F"]
    assert [trained_lanes(pair) for pair in PUBLISHED_PAIRS.values()] == [[]] * len(PUBLISHED_PAIRS)
