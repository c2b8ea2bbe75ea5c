"""What the service refuses, and in which words: OpenAI's error object, whatever happened."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served import CHAT, CONFIGS, error_of, small_model
from servers import serving

from d2f.serve.service import Options, create_app
from d2f.tokenizer import Tokenizer

CALL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def client(tokenizer: Tokenizer) -> Iterator[httpx.Client]:
    model = small_model("ar", tokenizer)
    app = create_app(model, CONFIGS["ar"], Options(model.name, max_tokens=64))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def ask(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post("/chat/completions", json={"model": "small-ar", "messages": CHAT} | changes)


@pytest.mark.parametrize(
    ("path", "body", "status", "message", "param"),
    [
        ("chat/completions", {"model": "gpt"}, 404, "'gpt' is not served here", "model"),
        ("chat/completions", {"messages": []}, 400, "at least 1 item", "messages"),
        (
            "chat/completions",
            {"messages": [{"role": "robot", "content": ""}]},
            400,
            "messages.0.role: Input should be",
            "messages.0.role",
        ),
        ("chat/completions", {"messages": None}, 400, "valid array", "messages"),
        ("chat/completions", {"max_tokens": 65}, 400, "at most 64 tokens", "max_tokens"),
        ("chat/completions", {"max_tokens": 0}, 400, "integer >= 1, got 0", None),
        ("chat/completions", {"max_tokens": "9"}, 400, "valid integer", "max_tokens"),
        ("chat/completions", {"temperature": -1}, 400, "temperature must be in [0, 10]", None),
        ("chat/completions", {"seed": 2**63}, 400, "seed must be at most", "seed"),
        ("chat/completions", {"settings": {"tau_conf": 1}}, 400, "unknown ar settings", None),
        ("chat/completions", {"stop": 5}, 400, "stop.0: Input should be a valid str", "stop.0"),
        (
            "chat/completions",
            {"stop": list("abcde")},
            400,
            "stop: at most 4 sequences are taken, got 5",
            "stop",
        ),
        ("chat/completions", {"stop": "x" * 1001}, 400, "stop.0: String should", "stop.0"),
        ("chat/completions", {"stream_options": {}}, 400, "needs stream", "stream_options"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "<|mask|>"}]},
            400,
            "must not contain the special token",
            "messages",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "one " * 300}]},
            400,
            "exceed the model's context of 256 tokens",
            "messages",
        ),
        ("events", {"decoder": "magic"}, 400, "no decoder 'magic'", "decoder"),
        ("events", {"decoder": "d2f"}, 400, "needs a diffusion model", "messages"),
        ("events", {"config": {"block_size": 8}}, 400, "unknown ar settings", None),
        ("events", {"config": {"top_k": 10**30}}, 400, "top_k must be at most", "top_k"),
        ("events", {"messages": CHAT * 300}, 400, "at most 256 items", "messages"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    client: httpx.Client, path: str, body: dict, status: int, message: str, param: str | None
):
    asked: dict[str, Any] = {"messages": CHAT}
    asked |= {"model": "small-ar"} if path != "events" else {}
    response = client.post(f"/{path}", json=asked | body)
    error = response.json()["error"]
    assert response.status_code == status
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


def test_bodies_that_are_no_request_are_refused(client: httpx.Client):
    for body in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000):
        response = client.post("/chat/completions", content=body)
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"
    response = client.post("/chat/completions", content=b" " * 1_048_577)
    assert (response.status_code, response.json()["error"]["message"]) == (
        413,
        "the request is longer than 1,048,576 bytes",
    )


def test_other_addresses_are_refused_in_the_same_form(client: httpx.Client):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/events", 405),
        ("PUT", "/models", 405),
    ):
        response = client.request(method, path)
        assert response.status_code == status
        assert f"{method} /v1{path}" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tools", [CALL], "this service calls no tools; leave it out or send []"),
        ("functions", [CALL], "this service calls no tools; leave it out or send []"),
        ("tool_choice", "required", 'calls no tools; leave it out or send "none" or "auto"'),
        ("n", 2, "a request gets one answer; leave it out or send 1"),
        ("n", True, "a request gets one answer; leave it out or send 1"),
        ("best_of", 3, "a request gets one answer; leave it out or send 1"),
        ("logprobs", True, "no probabilities are told; leave it out or send false"),
        ("top_logprobs", 5, "no probabilities are told; leave it out or send 0"),
        ("logit_bias", {"50256": -100}, "tokens cannot be weighted; leave it out or send {}"),
        ("presence_penalty", 0.1, "decoding knows no penalties; leave it out or send 0"),
        ("frequency_penalty", -2, "decoding knows no penalties; leave it out or send 0"),
        ("repetition_penalty", 1.1, "decoding knows no penalties; leave it out or send 1"),
        ("min_p", 0.05, "decoding knows no min_p; leave it out or send 0"),
        ("min_tokens", 3, "answers have no least length; leave it out or send 0"),
        ("ignore_eos", True, "the model's end token ends an answer; leave it out or send false"),
        ("stop_token_ids", [5], "stop sequences are text: use stop; leave it out or send []"),
        (
            "response_format",
            {"type": "json_object"},
            'answers are free text; leave it out or send {"type":"text"}',
        ),
        ("modalities", ["text", "audio"], 'answers are text; leave it out or send ["text"]'),
        ("echo", True, "an answer does not repeat its prompt; leave it out or send false"),
        ("colour", "red", "there is no such field; leave it out"),
    ],
)
def test_a_value_that_would_change_the_answer_is_refused_by_name(
    client: httpx.Client, field: str, value: Any, message: str
):
    response = ask(client, **{field: value})
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, field)
    assert error["message"].startswith(f"{field}: ") and error["message"].endswith(message)


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        ({"role": "tool", "content": "4"}, "role", "Input should be 'system', 'developer', 'user'"),
        ({"role": "user", "content": None}, "content", "Input should be a valid string"),
        ({"role": "user"}, "content", "Field required"),
        ({"role": "user", "content": 5}, "content", "Input should be a valid string"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "content.0.type",
            "Input should be 'text'",
        ),
        ({"role": "user", "content": ["x"]}, "content.0", "Input should be an object"),
        (
            {"role": "user", "content": "a\0b"},
            "content",
            "the text holds the control character U+0000; remove it",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "\x1b[31m"}]},
            "content.0.text",
            "the text holds the control character U+001B; remove it",
        ),
        (
            {"role": "user", "content": "x" * 262_145},
            "content",
            "String should have at most 262144 characters",
        ),
        (
            {"role": "assistant", "content": "x", "tool_calls": [CALL]},
            "tool_calls",
            "this service calls no tools; leave it out or send []",
        ),
        ("Count.", None, "Input should be an object"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(
    client: httpx.Client, message: Any, param: str | None, told: str
):
    response = ask(client, messages=[*CHAT, message])
    error = error_of(response)
    where = ".".join(["messages.1", *([param] if param else [])])
    assert (response.status_code, error["param"]) == (400, where)
    assert error["message"].startswith(f"{where}: {told}")


HUGE = b"9" * 400


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", b"NaN", "temperature must be in [0, 10], got nan"),
        ("temperature", b"-Infinity", "temperature must be in [0, 10], got -inf"),
        ("temperature", b"1e999", "temperature must be at most 2147483647, got inf"),
        ("top_p", b"NaN", "top_p must be in (0, 1], got nan"),
        ("top_p", b"0", "top_p must be in (0, 1], got 0.0"),
        ("top_k", b"-2", "top_k must be an integer >= 0, got -2"),
        ("seed", b"-2", "seed must be an integer >= 0, got -2"),
        ("seed", HUGE, f"seed must be at most {2**63 - 1}, got 999"),
        ("max_tokens", HUGE, "max_new_tokens must be at most 2147483647, got 999"),
        ("max_tokens", b"-" + HUGE, "max_new_tokens must be an integer >= 1, got -999"),
        ("max_tokens", b"1.5", "max_tokens: Input should be a valid integer"),
        ("max_tokens", b"true", "max_tokens: Input should be a valid integer"),
        ("max_completion_tokens", b"0", "max_new_tokens must be an integer >= 1, got 0"),
        ("presence_penalty", b"NaN", "presence_penalty: decoding knows no penalties"),
        ("settings", b'{"top_p": NaN}', "top_p must be in (0, 1], got nan"),
        ("settings", b'{"top_k": {"a": [1]}}', "top_k must be an integer >= 0, got {'a': [1]}"),
        ("seed", b"9" * 5000, "Invalid JSON: number out of range"),
        ("metadata", b"[" * 1000 + b"]" * 1000, "Invalid JSON: recursion limit exceeded"),
        ("user", b'"\\ud800"', "Invalid JSON: unexpected end of hex escape"),
        ("user", b'"\xff"', "Invalid JSON: invalid unicode code point"),
        ("user", b'"\0"', "Invalid JSON: control character"),
        ("user", b"'me'", "Invalid JSON: expected value"),
        ("x" * 100_000, b"1", "x" * 500 + " \u2026 " + "x"),
    ],
)
def test_odd_numbers_and_odd_json_are_told_in_a_clear_sentence(
    client: httpx.Client, field: str, value: bytes, message: str
):
    body = b'{"model":"small-ar","messages":[{"role":"user","content":"a"}],"%s":%s}'
    response = client.post("/chat/completions", content=body % (field.encode(), value))
    assert response.status_code == 400
    error = error_of(response)
    assert error["message"].startswith(message)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "nonsense"])
@pytest.mark.parametrize("path", ["chat/completions", "completions", "events"])
def test_a_body_declared_as_something_else_is_refused(client: httpx.Client, kind: str, path: str):
    response = client.post(f"/{path}", content=b"{}", headers={"Content-Type": kind})
    assert response.status_code == 415
    told = f"the body is declared as '{kind}'; send Content-Type: application/json"
    assert error_of(response)["message"] == told


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (["a", "b"], "prompt: a request is one prompt; send each on its own"),
        ([[1], [2]], "prompt: a request is one prompt; send each on its own"),
        ([], "prompt_ids must not be empty"),
        ("", "prompt_ids must not be empty"),
        ([10**6], "prompt_ids must be token ids of the model, got 1000000"),
        ([-1], "prompt.0: Input should be greater than or equal to 0"),
        ([1, "a"], "prompt.1: Input should be a valid integer"),
        (5, "prompt: Input should be a valid string"),
        (None, "prompt: Input should be a valid string"),
        ("a\0", "prompt: the text holds the control character U+0000; remove it"),
        ("<|mask|>", "prompt_ids must not contain the mask token"),
    ],
)
def test_prompts_that_cannot_be_completed(tokenizer: Tokenizer, prompt: Any, message: str):
    model = small_model("d2f", tokenizer)
    app = create_app(model, CONFIGS["d2f"], Options(model.name))
    with serving(app) as url:
        asked = {"model": model.name, "prompt": prompt}
        response = httpx.post(f"{url}/completions", json=asked, timeout=30)
    assert response.status_code == 400
    error = error_of(response)
    assert error["message"].startswith(message) and error["param"].startswith("prompt")


def test_probabilities_of_a_prompt_are_refused_in_words(client: httpx.Client):
    """The request of lm-evaluation-harness for a task of multiple choice."""
    asked = {"model": "small-ar", "prompt": [[5, 6]], "max_tokens": 1, "logprobs": 1, "echo": True}
    error = error_of(client.post("/completions", json=asked))
    assert (
        error["message"] == "echo: an answer does not repeat its prompt; leave it out or send false"
    )
    error = error_of(client.post("/completions", json=asked | {"echo": False}))
    assert error["message"].startswith("logprobs: no probabilities are told, so tasks that compare")
