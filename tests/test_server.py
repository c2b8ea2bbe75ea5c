"""Where a lane on another machine runs: addresses, keys, and proxies on the way."""

import argparse
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from asking import answered_by, lane_at, run
from servers import DONE, Scripted, chunk, free_port

from app.lanes.runners import add_options, chosen_runners
from app.lanes.server import Server, is_here, read_key
from d2f.errors import InvalidInput

ANSWER = [chunk("one"), chunk(reason="stop"), DONE]
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def refusing_proxy() -> Iterator[tuple[str, list[str]]]:
    """A company's proxy that lets nothing through; its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(403, "Forbidden by policy")
            self.end_headers()

        do_POST = do_CONNECT = answer

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def failure(server: Server) -> str:
    with lane_at(server) as lane:
        return run(lane).failure


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost",
        "localhost.",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "127.1",
        "::1",
    ]
    + ["::ffff:127.0.0.1", "0.0.0.0", "::"],
)
def test_this_machine_is_known_by_all_its_names(host: str):
    assert is_here(host)


@pytest.mark.parametrize(
    "host",
    ["gpu", "localhost.example.com", "10.0.0.1", "::2", "128.0.0.1", "example.com", "nolocalhost"],
)
def test_another_machine_is_not_this_one(host: str):
    assert not is_here(host)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_this_machine_is_never_asked_by_way_of_a_proxy(name: str, monkeypatch: pytest.MonkeyPatch):
    with refusing_proxy() as (proxy, asked), Scripted(ANSWER) as server:
        monkeypatch.setenv(name, f"http://{proxy}")
        lane = answered_by(server)
    assert (lane.failure, lane.trace.text, asked) == ("", "one", [])


def test_a_proxy_that_cannot_be_is_no_matter_for_this_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7891/")
    with Scripted(ANSWER) as server:
        assert answered_by(server).trace.text == "one"


@pytest.mark.parametrize(
    ("url", "variable", "told", "asked"),
    [
        (
            "http://gpu.example:8000/v1",
            "http_proxy",
            "The server at gpu.example:8000, asked by way of the proxy in HTTP_PROXY, refused the "
            "API key (403).",
            "POST http://gpu.example:8000/v1/chat/completions",
        ),
        (
            "https://gpu.example/v1",
            "ALL_PROXY",
            "The server at gpu.example, asked by way of the proxy in ALL_PROXY, cannot be reached: "
            "the proxy says “403 Forbidden by policy”.",
            "CONNECT gpu.example:443",
        ),
    ],
)
def test_what_a_proxy_does_is_told_with_its_variable(
    url: str, variable: str, told: str, asked: str, monkeypatch: pytest.MonkeyPatch
):
    with refusing_proxy() as (proxy, seen):
        monkeypatch.setenv(variable, proxy)
        assert failure(Server(url, "llama")) == told
    assert seen == [asked]


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        (
            "socks://127.0.0.1:7891/",
            "cannot be asked: HTTP_PROXY is no address of a proxy: it must begin with http://, "
            "https:// or socks5://. Correct or unset it.",
        ),
        ("http://127.0.0.1:1", "cannot be reached."),
    ],
)
def test_a_proxy_that_is_none_is_told(proxy: str, told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", proxy)
    assert failure(Server("http://gpu.example/v1", "llama")) == (
        f"The server at gpu.example, asked by way of the proxy in HTTP_PROXY, {told}"
    )


def test_a_host_that_needs_no_proxy_is_asked_directly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "socks://nowhere")
    monkeypatch.setenv("no_proxy", "10.1.1.1,gpu.example")
    assert Server("http://gpu.example/v1", "llama").proxy is None
    assert Server("http://other.example/v1", "llama").proxy == ("HTTP_PROXY", "socks://nowhere")
    assert Server("https://other.example/v1", "llama").proxy is None


@pytest.mark.parametrize("key", ["sk-x\n", "\r\nsk-x", "  sk-x\t", "sk-x\u00a0", "sk-x"])
def test_blanks_around_a_key_are_no_part_of_it(key: str):
    with Scripted(ANSWER) as server, lane_at(Server(server.url, "llama", key=key)) as lane:
        assert run(lane).failure == ""
    assert server.asked[0][1]["Authorization"] == "Bearer sk-x"


@pytest.mark.parametrize(
    ("key", "code", "place"),
    [
        ("“sk-x”", "201C", 1),
        ("sk\n-x", "000A", 3),
        ("\ufeffsk-x", "FEFF", 1),
        ("sk-é", "00E9", 4),
        ("sk-\x7f", "007F", 4),
        ("sk-\udcff", "DCFF", 4),
    ],
)
def test_a_key_that_no_header_can_hold_is_refused_at_the_start(key: str, code: str, place: int):
    told = f"holds the character U+{code} at place {place}, which no HTTP header can hold"
    with pytest.raises(InvalidInput, match=f"^the API key for host:8000 {told.replace('+', '.')}"):
        Server("http://host:8000/v1", "llama", key=key)
    with pytest.raises(InvalidInput) as error:
        read_key("OPENAI_API_KEY", key)
    assert str(error.value) == f"OPENAI_API_KEY {told}: copy the key again"


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        (["--ar-url", "http://host/v1", "--ar-model", "llama"], "OPENAI_API_KEY"),
        (["--ar-events", "http://host/v1"], "D2F_API_KEY"),
        (["--d2f-events", "http://host/v1"], "D2F_API_KEY"),
    ],
)
def test_the_variable_of_a_bad_key_is_named(options: list[str], variable: str):
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(InvalidInput, match=f"^{variable} holds the character U.201C at place 1"):
        chosen_runners(parser.parse_args(options), {variable: "“sk-x”"})


def test_a_server_that_hangs_up_before_it_answers_is_told_apart():
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)

        thread = threading.Thread(target=hang_up)
        thread.start()
        told = failure(Server(f"http://127.0.0.1:{port}/v1", "llama"))
        thread.join()
    assert told == f"The server at 127.0.0.1:{port} closed the connection without an answer."
