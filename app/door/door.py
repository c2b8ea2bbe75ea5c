"""The door: what a request may be before Gradio reads it, and what is answered if it may not.

Gradio takes a body and the names in it as they come: one of 5 MB is kept, one that it does not know
is a traceback in the log and no word for the caller. Here lengths and names are checked first, and
whatever still fails behind the door is told as all failures are. Knows nothing of races.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..failures import words
from ..page.quota import Quota
from ..page.visitors import internet_address
from .calls import check_call, check_name
from .line import Line
from .refused import Refused

API = "/gradio_api/"
MAX_BODY = 1_000_000  # bytes; a long conversation takes 400,000
MAX_FILE = 6_000_000  # a recording of 2,500,000 characters, in UTF-16 at most
MAX_UPLOAD = MAX_FILE + 65_536  # a form with one file
MAX_HEADERS = 32_768
MAX_ADDRESS = 49_152  # a prompt of 4,000 characters, each of them nine in an address
UPLOADS, UPLOADS_TOGETHER = 30, 200  # an hour, by an address of the internet and by all
CALLS = ("queue", "run", "api", "call", "cancel", "reset")  # posted as JSON
POSTED = (*CALLS, "upload", "mcp")
CLOSED = ("deep_link", "upload_progress")  # they keep what they are asked, and the page has neither


class Door:
    """ASGI middleware around Gradio's app, whose state holds the :class:`.line.Line`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._uploads = Quota(UPLOADS, UPLOADS_TOGETHER, seconds=3600)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = Answer(scope, receive, send)
        try:
            await self._admit(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Refused as error:
            await answer.refuse(error.status, str(error))
        except Exception as error:
            await answer.refuse(500, words(error))

    async def _admit(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        check_head(scope)
        path = parts_of(scope["path"])
        receive = bounded(receive, MAX_UPLOAD if path[:1] == ["upload"] else MAX_BODY)
        if path and scope["method"] == "POST":
            receive = await self._posted(path, scope, receive)
        with ExitStack() as stays:
            if path and scope["method"] == "GET":
                stay(stays, path, Request(scope), scope["app"].state.line)
            await self._app(scope, receive, answer.send)

    async def _posted(self, path: list[str], scope: Scope, receive: Receive) -> Receive:
        """What Gradio receives of a request that was posted to the API."""
        if path[0] not in POSTED:
            raise Refused(404, "There is no such address here.")
        if path[0] == "upload":
            host = scope["client"][0] if scope["client"] else ""
            if not self._uploads.take(internet_address(host) or uuid4().hex):
                raise Refused(429, "Too many files were opened in the last hour. Try again later.")
            scope["query_string"] = b""  # a name by which to ask for its progress, kept for ever
        if path[0] not in CALLS:
            return receive
        body = await Request(scope, receive).body()
        check_call(path, body, scope["app"].get_blocks())
        return replayed(body, receive)


class Answer:
    """What is sent, and whether anything has been."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send, self._begun = scope, receive, send, False

    async def send(self, message: Message) -> None:
        self._begun = True
        await self._send(message)

    async def refuse(self, status: int, text: str) -> None:
        """Says why, unless something else is being said: that ends here."""
        if self._begun:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        # Gradio's page reads the one word where it queued, and the other where it did not.
        response = JSONResponse({"error": text, "detail": text}, status)
        await response(self._scope, self._receive, self._send)


def parts_of(path: str) -> list[str]:
    """The parts of an address below the API's; none of another address."""
    _, api, call = path.partition(API)
    return call.strip("/").split("/") if api else []


def check_head(scope: Scope) -> None:
    """Refuses an address or headers that are too long."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_ADDRESS:
        raise Refused(414, f"An address has at most {MAX_ADDRESS:,} bytes.")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
        raise Refused(431, f"The headers have at most {MAX_HEADERS:,} bytes together.")


def stay(stays: ExitStack, path: Sequence[str], request: Request, line: Line) -> None:
    """Takes down for how long a page is open, or somebody listens to the queue."""
    match path:
        case ["heartbeat", session]:
            stays.enter_context(line.present(check_name("session_hash", session)))
        case ["queue", "data"]:
            session = check_name("session_hash", request.query_params.get("session_hash"))
            if not line.waits(session):
                raise Refused(404, "Nothing waits for this session, or nobody listened in time.")
            stays.enter_context(line.listening(session))
        case ["call", _, event] | ["call", "v2", _, event]:
            owner = line.session_of(check_name("event_id", event))
            if owner is None:
                raise Refused(404, "There is no such event, or nobody listened in time.")
            stays.enter_context(line.listening(owner))
        case [name, *_] if name in CLOSED:
            raise Refused(404, "There is no such address here.")


def bounded(receive: Receive, most: int) -> Receive:
    """What comes, as long as it is not too much."""
    left = most

    async def received() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise Refused(413, f"The body has at most {most:,} bytes here.")
        return message

    return received


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, then what comes."""
    messages: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": body}])

    async def received() -> Message:
        return next(messages, None) or await receive()

    return received
