"""What the service says when a template, the model or the program fails, and what it logs."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest
import torch
from served import CHAT, CONFIGS, error_of, messages, small_model
from servers import serving

from d2f.errors import ComputeError, LoadError, TooLittleMemory
from d2f.serve.__main__ import main
from d2f.serve.refused import Refused, refusal
from d2f.serve.service import Options, create_app
from d2f.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def client(tokenizer: Tokenizer) -> Iterator[httpx.Client]:
    model = small_model("ar", tokenizer)
    app = create_app(model, CONFIGS["ar"], Options(model.name, max_tokens=64))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def ask(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post("/chat/completions", json={"model": "small-ar", "messages": CHAT} | changes)


def test_a_failing_run_is_told_in_the_stream_and_logged(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
):
    model = small_model("ar", tokenizer)
    model.net.norm.weight = torch.nn.Parameter(torch.ones(7), requires_grad=False)
    app = create_app(model, CONFIGS["ar"], Options(model.name))
    with serving(app) as url, httpx.Client(base_url=url, timeout=10) as client:
        ((_, _), (kind, told)) = messages(client.post("/events", json={"messages": CHAT}))
        assert (kind, told["error"]["type"]) == ("error", "server_error")
        (_, told) = [d for _, d in messages(ask(client, stream=True))]
        assert told["error"]["message"] == "the run failed on the server; its log says more"
        response = ask(client)
        assert (response.status_code, response.json()) == (500, told)
    assert caplog.text.count("a run failed") == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat/completions", "events"])
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('take  turns') }}", "take turns"),
        ("{{ nothing.there }}", "'nothing' is undefined"),
        ("{{ messages | backwards }}", "No filter named 'backwards'."),
        ("{% for m in messages %}", "Unexpected end of template."),
    ],
)
def test_a_template_that_refuses_a_chat_is_told_in_its_words(
    tokenizer_folder: Path, tmp_path: Path, template: str, told: str, path: str, stream: bool
):
    copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").write_text(template)
    model = small_model("ar", Tokenizer(tmp_path))
    asked: dict[str, Any] = {"messages": CHAT}
    asked |= {"model": model.name, "stream": stream} if path != "events" else {}
    with serving(create_app(model, CONFIGS["ar"], Options(model.name))) as url:
        response = httpx.post(f"{url}/{path}", json=asked, timeout=30)
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, "messages")
    expected = f"the model's chat template refuses this chat: {told}"
    assert error["message"].startswith(expected)


class Failing:
    """A tokenizer that fails as it is told to."""

    def __init__(self, tokenizer: Tokenizer, error: Exception) -> None:
        self._tokenizer, self._error = tokenizer, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_chat(self, chat: Any) -> list[int]:
        raise self._error


@pytest.mark.parametrize("path", ["chat/completions", "events"])
def test_a_fault_before_the_run_is_answered_and_logged_once_and_briefly(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture, path: str
):
    model = small_model("ar", tokenizer)
    broken = replace(model, tokenizer=Failing(tokenizer, ZeroDivisionError("x" * 100_000)))
    app = create_app(broken, CONFIGS["ar"], Options(model.name))
    asked = {"messages": CHAT} | ({"model": model.name} if path != "events" else {})
    with serving(app) as url:
        response = httpx.post(f"{url}/{path}", json=asked, timeout=30)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (500, "server_error")
    assert error["message"] == "the run failed on the server; its log says more"
    (record,) = caplog.records
    said = record.getMessage()
    assert "in encode_chat" in said and said.count("Traceback") == 1 and len(said) < 8100


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ComputeError("the model computed NaN"), 500, "server_error"),
        (LoadError("the weights are gone"), 500, "server_error"),
        (TooLittleMemory("9 GB are free"), 503, "server_error"),
        (Refused(404, "no"), 404, "not_found_error"),
    ],
)
def test_errors_of_the_model_are_the_servers(
    error: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
):
    told = refusal(error)
    assert (told.status, told.to_dict()["error"]["type"]) == (status, kind)
    assert str(told) == str(error)
    assert "Traceback" not in caplog.text


def test_a_run_that_computes_nothing_usable_says_so(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    """What decoding tells of itself reaches the client in its words, whole and streamed."""
    model = small_model("ar", tokenizer)

    def nan(*_: Any) -> Any:
        raise ComputeError("the model computed NaN in float16: run it in float32")

    monkeypatch.setattr(model.net, "forward", nan)
    app = create_app(model, CONFIGS["ar"], Options(model.name))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        whole = ask(client)
        assert whole.status_code == 500
        assert error_of(whole)["message"].startswith("the model computed NaN in float16")
        assert messages(ask(client, stream=True))[-1] == ("", whole.json())
        assert messages(client.post("/events", json={"messages": CHAT}))[-1] == (
            "error",
            whole.json(),
        )


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_fault(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
        raw.sendall(head.encode())
    assert ask(client, max_tokens=1).status_code == 200
    assert caplog.records == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "{taken}"], "d2f serve: port {taken} is taken: --port {next}"),
        (["--port", "65536"], "d2f serve: --port must be 0 to 65535, got 65536"),
        (["--port", "-1"], "d2f serve: --port must be 0 to 65535, got -1"),
        (["--host", "192.0.2.1"], "d2f serve: the address cannot be had: Cannot assign"),
    ],
)
def test_an_address_that_cannot_be_had_is_told_in_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        places = {"taken": port, "next": port + 1}
        given = [each.format(**places) for each in argv]
        assert main(["--model", "mini-d2f", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith(message.format(**places)) and said.count("\n") == 1
