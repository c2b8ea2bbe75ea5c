"""Real HTTP servers on the loopback: any ASGI application, and a scripted OpenAI-compatible one."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn
from starlette.types import ASGIApp

DONE = b"data: [DONE]\n\n"
CUT = "cut the connection in the middle of the body"
HANG = "say nothing until the client is gone"
Part = bytes | float | str | threading.Event


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The base address of a uvicorn that serves ``app`` in a thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [free]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def chunk(text: str | None = None, reason: str | None = None, **more: Any) -> bytes:
    """A chunk of OpenAI's chat completions."""
    delta = {"content": text} if text is not None else {}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return message({"object": "chat.completion.chunk", "choices": [choice]} | more)


def message(data: Any) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def counts(tokens: int) -> bytes:
    return chunk(choices=[], usage={"completion_tokens": tokens})


Refusal = tuple[int, Any]  # status, and what is said as JSON


class Scripted:
    """A server that answers every POST with its script: bytes to send, what to wait for.

    ``refuse`` looks at what is asked first, and may refuse it.
    """

    def __init__(
        self,
        script: Sequence[Part],
        status: int = 200,
        kind: str = "text/event-stream",
        refuse: Callable[[dict[str, Any]], Refusal | None] = lambda body: None,
    ) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.gone = threading.Event()
        speaker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                speaker.asked.append((self.path, dict(self.headers), body))
                if refused := refuse(body):
                    self.refuse(*refused)
                    return
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                try:
                    self.play()
                except OSError:
                    speaker.gone.set()

            def refuse(self, status: int, said: Any) -> None:
                data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
                self.send_response(status)
                kind = "text/plain" if isinstance(said, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def play(self) -> None:
                for item in script:
                    if isinstance(item, bytes):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(item), item))
                    elif item == HANG:
                        self.connection.settimeout(10)
                        if self.connection.recv(1) == b"":
                            speaker.gone.set()
                        return
                    elif item == CUT:
                        self.wfile.write(b"ff\r\ndata: {")
                        return
                    elif isinstance(item, threading.Event):
                        item.wait(60)
                    else:
                        time.sleep(item)
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "Scripted":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
