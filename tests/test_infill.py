"""Answers with gaps: in Python, on the command line and in the service."""

import json
from collections.abc import Iterator

import httpx
import pytest
from served import CHAT, CONFIGS, error_of, messages, small_model
from servers import serving

from d2f import Model, Trace, generate
from d2f.cli.generate import main
from d2f.errors import InvalidInput
from d2f.infill import infill
from d2f.serve.service import Options, create_app
from d2f.tokenizer import Tokenizer

TEMPLATE = "Tom has ____ apples and ___ pears."


@pytest.mark.parametrize(
    ("template", "text", "missing"),
    [
        (TEMPLATE, "Tom has---- apples and--- pears.", 7),
        ("____", "----", 4),
        ("__ and", "-- and", 2),
        ("x__", "x--", 2),
        ("a_b __", "a_b--", 2),
        ("x = __\n#### __", "x =--\n####--", 4),
    ],
)
def test_gaps_have_a_token_for_each_underscore(
    template: str, text: str, missing: int, tokenizer: Tokenizer
) -> None:
    [fill] = tokenizer.encode_within("-")
    hold, length = infill(tokenizer, template)
    assert tokenizer.decode([hold.get(place, fill) for place in range(length)]) == text
    assert length - len(hold) == missing
    assert (length - 1 in hold) == (not template.endswith("_"))


def test_a_text_that_goes_on_behind_its_gaps_ends_the_answer(tokenizer: Tokenizer) -> None:
    hold, length = infill(tokenizer, "a __ b")
    assert hold[length - 1] == tokenizer.end_id


@pytest.mark.parametrize("template", ["", "no gap", "one _ only"])
def test_a_text_without_a_gap_is_refused(template: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match="two or more in a row"):
        infill(tokenizer, template)


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["--model", "mini-d2f", "--prompt", "Solve 3x + 4 = 19.", *args])
    return code, *capsys.readouterr()


def test_the_command_line_fills_gaps_as_the_trained_model_would(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(capsys, "--infill", "Subtract 4 from both sides: 3x = _______.")
    assert (code, out) == (0, "Subtract 4 from both sides: 3x = 19 - 4 = 15.\n")
    assert "7 tokens in" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--infill", "no gap"), "mark the gaps"),
        (("--infill", "a __", "--max-new-tokens", "9"), "leave --max-new-tokens out"),
        (("--infill", "a __ b", "--model", "mini-ar"), "from left to right"),
        (("--infill", "<|end|> __"), "must not contain the special token"),
    ],
)
def test_what_cannot_be_filled_is_refused_in_one_line(
    args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = run(capsys, *args)
    assert (code, out) == (2, "")
    assert message in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def served(tokenizer: Tokenizer) -> Iterator[tuple[Model, httpx.Client]]:
    model = small_model("d2f", tokenizer)
    app = create_app(model, CONFIGS["d2f"], Options(model.name, max_tokens=64))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield model, client


def expected(model: Model) -> Trace:
    hold, length = infill(model.tokenizer, TEMPLATE)
    values = CONFIGS["d2f"].__dict__ | {"max_new_tokens": length}
    config = type(CONFIGS["d2f"])(**values)
    return generate(model, model.tokenizer.encode_chat(CHAT), config, hold=hold)


def test_the_service_fills_gaps_whole_and_streamed(served: tuple[Model, httpx.Client]) -> None:
    model, client = served
    trace = expected(model)
    asked = {"model": model.name, "messages": CHAT, "infill": TEMPLATE}
    whole = client.post("/chat/completions", json=asked).json()
    assert whole["choices"][0]["message"]["content"] == trace.text
    assert whole["usage"]["completion_tokens"] == trace.tokens == 7
    *chunks, _ = messages(client.post("/chat/completions", json=asked | {"stream": True}))
    parts = [data["choices"][0]["delta"].get("content", "") for _, data in chunks]
    assert "".join(parts) == trace.text
    # The text before the first gap needs no forward more than the first.
    assert parts[1].startswith("Tom has")


def test_events_take_held_tokens_and_tell_the_guesses(served: tuple[Model, httpx.Client]) -> None:
    model, client = served
    hold, length = infill(model.tokenizer, TEMPLATE)
    asked = {"messages": CHAT, "config": {"max_new_tokens": length}, "inspect": True}
    told = messages(client.post("/events", json=asked | {"hold": list(hold.items())}))
    header = Trace.from_json(json.dumps(told[0][1])).header
    assert dict(header.held) == hold
    steps = [data for kind, data in told if kind == "step"]
    texts = {token_id for step in steps for token_id, _ in step["texts"]}
    commits = [row for step in steps for row in step["event"]["commits"]]
    assert {token_id for row in commits for token_id, _ in row[4]} <= texts
    assert [row[:2] for row in commits] == [
        [c.position, c.token_id] for e in expected(model).events for c in e.commits
    ]


@pytest.mark.parametrize(
    ("path", "fields", "message", "param"),
    [
        ("/chat/completions", {"infill": "no gap"}, "mark the gaps", "infill"),
        ("/chat/completions", {"infill": "a __", "max_tokens": 9}, "a limit of tokens", "infill"),
        ("/chat/completions", {"infill": "_" * 65}, "at most 64 tokens", "max_tokens"),
        ("/events", {"infill": "a __", "hold": [[0, 5]]}, "leave hold out", "infill"),
        ("/events", {"hold": [[99, 5]]}, "places from 0", "hold"),
        ("/events", {"hold": [[0, 5, 6]]}, "hold.0", "hold.0"),
        ("/events", {"hold": [[0, "a"]]}, "hold.0.1", "hold.0.1"),
        ("/events", {"inspect": 1}, "inspect", "inspect"),
    ],
)
def test_the_service_refuses_what_cannot_be_held(
    path: str, fields: dict, message: str, param: str, served: tuple[Model, httpx.Client]
) -> None:
    model, client = served
    named = {"model": model.name} if path == "/chat/completions" else {}
    response = client.post(path, json={"messages": CHAT, **named, **fields})
    error = error_of(response)
    assert response.status_code == 400
    assert message in error["message"]
    assert error["param"] == param
