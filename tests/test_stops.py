"""Stop sequences: the text ends before the first, however it comes, and so does the work."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import CHAT, CONFIGS, here, messages, small_model
from servers import serving
from tiny import Watched

from d2f import Model, Trace
from d2f.config import DecodeConfig
from d2f.serve.service import Options, create_app
from d2f.stops import UpToStop
from d2f.tokenizer import Tokenizer


def said(stops: list[str], pieces: list[str]) -> list[str]:
    """What is sent after each piece, and at the end."""
    until, sent = UpToStop(stops), []
    for piece in pieces:
        if until.met:
            break
        sent.append(until.add(piece))
    return [*sent, until.rest()]


@pytest.mark.parametrize(
    ("stops", "pieces", "sent"),
    [
        ([], ["ab", "c"], ["ab", "c", ""]),
        (["c"], ["ab", "cd", "e"], ["ab", "", ""]),
        (["END"], ["a E", "N", "D z"], ["a ", "", "", ""]),
        (["END"], ["a E", "N", "d z"], ["a ", "", "ENd z", ""]),
        (["END"], ["a EN"], ["a ", "EN"]),
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", "", ""]),
        (["\n\n"], ["1\n", "2\n", "\n3"], ["1", "\n2", "", ""]),
        (["abc", "b"], ["abc"], ["a", ""]),
        (["bc", "abc"], ["xabcd"], ["x", ""]),
        (["zz", "ab"], ["ab"], ["", ""]),
        (["ß🙂"], ["ß", "🙂!"], ["", "", ""]),
    ],
)
def test_only_what_may_begin_a_stop_sequence_is_held_back(
    stops: list[str], pieces: list[str], sent: list[str]
):
    assert said(stops, pieces) == sent


def first_stop(text: str, stops: list[str]) -> str:
    """The same letter by letter: the text before whatever sequence is complete first."""
    for end in range(len(text) + 1):
        ended = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(ended)]
    return text


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
)
def test_the_borders_of_pieces_make_no_difference(pieces: list[str], stops: list[str]):
    expected = first_stop("".join(pieces), stops)
    sent = said(stops, pieces)
    assert "".join(sent) == expected
    assert all(expected.startswith(text) for text in accumulate(sent))


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def served(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Iterator[tuple]:
    model, config = small_model(request.param, tokenizer), CONFIGS[request.param]
    app = create_app(model, config, Options(model.name, max_tokens=64))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield model, config, client


def stops_of(trace: Trace, tokenizer: Tokenizer) -> dict[str, tuple[list[str], str]]:
    """Sequences of each kind for a run, with the text that is to be left."""
    text, ids = trace.text, trace.token_ids
    ends = [len(tokenizer.decode(ids[:count])) for count in range(len(ids) + 1)]
    # Behind a border between two tokens, whose texts are whole by themselves.
    border = next(end for end in ends[6:] if text[end - 1 : end + 1].isascii())
    cases = {
        "across tokens": [text[border - 1 : border + 1]],
        "one letter": [text[border]],
        "the beginning": [text[:2]],
        "several": ["\x00", text[border + 1 :], text[border : border + 2]],
        "the whole": [text],
        "none of it": ["never said"],
        "the end and more": [text[-3:] + "more"],
    }
    return {name: (stops, first_stop(text, stops)) for name, stops in cases.items()}


def tokens_of(text: str, trace: Trace, tokenizer: Tokenizer) -> int:
    """Tokens that have a part in a text; all of the run, with its stop token, if it is whole."""
    if text == trace.text:
        return trace.tokens
    ids = trace.token_ids
    prefixes = (tokenizer.decode(ids[:count]) for count in range(len(ids)))
    return next(count for count, prefix in enumerate(prefixes) if prefix.startswith(text))


def steps_to(stops: list[str], model: Model, trace: Trace) -> int:
    """Forwards until a sequence is readable."""
    for count in range(1, trace.forwards + 1):
        ids = Trace(trace.header, trace.events[:count]).token_ids
        text = model.tokenizer.decode(ids)
        if any(stop in text for stop in stops):
            return count
    return trace.forwards


NAMES = [
    "across tokens",
    "one letter",
    "the beginning",
    "several",
    "the whole",
    "none of it",
    "the end and more",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_its_stop_sequence_and_so_does_the_work(
    served: tuple[Model, DecodeConfig, httpx.Client], name: str, path: str, stream: bool
):
    model, config, client = served
    trace = here(model, config)
    stops, expected = stops_of(trace, model.tokenizer)[name]
    reason = trace.finish_reason if expected == trace.text else "stop"
    assert isinstance(model.net, Watched)
    model.net.windows.clear()
    asked: dict[str, Any] = {"model": model.name, "stop": stops, "stream": stream}
    if path == "completions":
        asked["prompt"] = list(trace.header.prompt_ids)
    else:
        asked["messages"] = CHAT
    if stream:
        asked["stream_options"] = {"include_usage": True}
    text, told, usage = answer(client.post(f"/{path}", json=asked), stream)
    assert (text, told) == (expected, reason)
    assert usage["completion_tokens"] == tokens_of(expected, trace, model.tokenizer)
    assert len(model.net.windows) == steps_to(stops, model, trace)


def answer(response: httpx.Response, stream: bool) -> tuple[str, str, dict[str, int]]:
    """Text, reason and usage of an answer of either kind."""
    assert response.status_code == 200, response.text
    if not stream:
        (choice,) = response.json()["choices"]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return text, choice["finish_reason"], response.json()["usage"]
    *chunks, counts, done = [data for _, data in messages(response)]
    assert done is True and counts["choices"] == []
    choices = [chunk["choices"][0] for chunk in chunks]
    deltas = [choice.get("delta", {"content": choice.get("text", "")}) for choice in choices]
    assert [each["finish_reason"] for each in choices[:-1]] == [None] * (len(choices) - 1)
    text = "".join(delta.get("content", "") for delta in deltas)
    return text, choices[-1]["finish_reason"], counts["usage"]


@pytest.mark.parametrize("stop", [None, [], "", [""], [None], ["", None, ""]])
def test_empty_stop_sequences_stop_nothing(served: tuple, stop: Any):
    model, config, client = served
    trace = here(model, config)
    asked = {"model": model.name, "messages": CHAT, "stop": stop}
    text, reason, usage = answer(client.post("/chat/completions", json=asked), False)
    assert (text, reason) == (trace.text, trace.finish_reason)
    assert usage["completion_tokens"] == trace.tokens


def test_sixteen_sequences_may_stop_a_completion(served: tuple):
    model, config, client = served
    trace = here(model, config)
    asked = {"model": model.name, "prompt": [list(trace.header.prompt_ids)]}
    asked["stop"] = [*(f"never {i}" for i in range(15)), trace.text[3:6]]
    text, reason, _ = answer(client.post("/completions", json=asked), False)
    assert (text, reason) == (first_stop(trace.text, asked["stop"]), "stop")
