"""A run on another machine as the same events as a run here, over HTTP and server-sent events.

- :class:`ChatReader`: any OpenAI-compatible server (vLLM, SGLang, llama.cpp). It tells no times and
  no token ids, so events are **timed at the client**: an event's seconds are those between two
  arrivals, the first one's from sending the request; opening the connection is not counted, as a
  running client would have one open. Every piece of text the server streams is shown as one token
  with an id of this lane's own; the prompt is one position; confidences are 0, for they are not
  told. What is kept in the end is a run of as many tokens as the server says that it wrote: several
  pieces become one token, or the missing ones follow without text and in no time.
- :class:`EventsReader`: ``d2f.serve``. Everything is as on the machine that decodes: the same
  events, with the seconds its decoder measured.

A server goes on generating while a lane here computes. So a thread of its own reads and stamps
each arrival, and the race only picks up what has been stamped: work here neither counts against
the server nor helps it. (Stamps can be late by as long as this process keeps its interpreter lock,
some milliseconds; lateness of one does not add to the next, so sums do not drift. A server on the
same machine shares its cores with the race, which no clock can undo.)

Which servers there are is the operator's word alone, never a visitor's. Knows nothing of lanes or
races.
"""

import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

import anyio
import httpx
from anyio.from_thread import start_blocking_portal

from d2f.config import ARConfig, DecodeConfig, config_to_dict, decoder_name
from d2f.errors import InvalidInput
from d2f.events import MALFORMED, StepEvent, Trace, TraceHeader, event_from_dict
from d2f.strict_json import NoJson, from_json, to_json
from d2f.tokenizer import Message

from ..characters import whole
from ..environment import check_proxy
from .chat import BROKE_OFF, PROMPT, ChatReader
from .refusal import ADAPTABLE, quote, read_refusal, told, words
from .server import RemoteError, Server
from .sse import EventParser

__all__ = ["ChatReader", "EventsReader", "Feed", "RemoteError", "Server", "reader_of"]

CONNECT = 5.0  # seconds
GRACE = 10.0  # seconds to wait for what may follow a whole answer, such as counts
POLL = 0.02
LONGEST = 900.0  # seconds a run may take
# What a stream of events may call itself: some servers leave it at a web server's default.
STREAMS = ("text/event-stream", "text/plain", "application/octet-stream", "")


class Reader(Protocol):
    """Makes events of what one server sends; remembers the texts of their tokens."""

    path: str
    body: dict[str, Any]
    texts: dict[int, str]
    finished: bool

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, though more may follow it."""

    def read(self, seconds: float, kind: str, data: str) -> Iterable[StepEvent]:
        """The events of one message that came so long after the request."""

    def rest(self) -> Iterable[StepEvent]:
        """Events that waited for what does not come any more."""

    def end(self) -> Iterable[StepEvent]:
        """The stream is over: its last events, or ``RemoteError`` if the answer is not whole."""

    def adapt(self, refusal: Any) -> bool:
        """Whether ``body`` is another one now, which a server that refused so may take."""


class Feed:
    """One request whose events a thread of its own reads, stamps and keeps until asked for."""

    def __init__(self, server: Server, reader: Reader) -> None:
        self._server, self._reader = server, reader
        self._items: deque[StepEvent | Exception | None] = deque()
        self._changed = threading.Condition()
        self._over = False
        self._answering = False
        self._sent = time.perf_counter()
        self._open = ExitStack()
        portal = self._open.enter_context(start_blocking_portal())
        self._task = portal.start_task_soon(self._run)

    @property
    def elapsed(self) -> float:
        """Seconds since the request was sent."""
        return time.perf_counter() - self._sent

    def ready(self, patience: float = 0.0) -> bool:
        """Whether the next event, or the end, is there within ``patience`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._over or bool(self._items), patience)

    def events(self) -> Iterator[StepEvent]:
        """Waits for each event. Raises ``RemoteError`` where the run breaks off."""
        while (item := self._take()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def refuse(self, error: RemoteError) -> None:
        """Ends the run here, with this failure."""
        self.close()
        self._tell([error])

    def close(self) -> None:
        """Cuts the connection, by which a server learns that nobody waits any more."""
        self._task.cancel()
        self._open.close()

    def _take(self) -> StepEvent | Exception | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items))
            item = self._items.popleft()
            self._over = not isinstance(item, StepEvent)
            return item

    def _tell(self, items: Iterable[StepEvent | Exception | None]) -> None:
        for item in items:
            with self._changed:
                self._items.append(item)
                self._changed.notify_all()

    async def _run(self) -> None:
        try:
            with anyio.fail_after(LONGEST):
                await self._request()
            self._tell([None])
        except Exception as error:
            reason = self._reason(error)
            self._tell([*self._reader.rest(), self._failure(reason)] if reason else [error])

    def _failure(self, reason: str) -> RemoteError:
        proxy = self._server.proxy
        way = f", asked by way of the proxy in {proxy[0]}," if proxy else ""
        return RemoteError(f"The server at {self._server.host}{way} {reason}")

    def _reason(self, error: Exception) -> str:
        """How the run broke off, in words that go on from the server's name; "" for our faults."""
        match error:
            case RemoteError():
                return str(error)
            case httpx.ProxyError():
                return f"cannot be reached: the proxy says {quote(error)}."
            case httpx.ConnectError() | httpx.ConnectTimeout():
                return "cannot be reached."
            case httpx.TimeoutException():
                return f"sent nothing for {self._server.timeout:g} seconds."
            case TimeoutError():
                return f"took longer than {LONGEST:g} seconds."
            case httpx.LocalProtocolError() | httpx.UnsupportedProtocol():
                return f"cannot be asked: {quote(error)}."
            case httpx.HTTPError():
                return BROKE_OFF if self._answering else "closed the connection without an answer."
        malformed = isinstance(error, (ValueError, *MALFORMED))
        return "sent something that is not an event of its protocol." if malformed else ""

    async def _request(self) -> None:
        async with self._client() as client:
            while not await self._asked(client):
                self._answering = False

    def _client(self) -> httpx.AsyncClient:
        server = self._server
        timeout = httpx.Timeout(server.timeout, connect=CONNECT)
        # Where nothing is encrypted, no certificates are read, which takes a tenth of a second.
        verify = httpx.URL(server.url).scheme == "https"
        if server.proxy is None:  # said to httpx as well, which has rules of its own
            transport = httpx.AsyncHTTPTransport(verify=verify)
            return httpx.AsyncClient(timeout=timeout, transport=transport)
        name, address = server.proxy
        try:
            check_proxy(name, address)
        except InvalidInput as error:
            raise RemoteError(f"cannot be asked: {error}.") from error
        return httpx.AsyncClient(timeout=timeout, verify=verify, proxy=address)

    async def _asked(self, client: httpx.AsyncClient) -> bool:
        """Asks, and reads the answer; False if the server is to be asked otherwise."""
        server, reader = self._server, self._reader
        headers = {"Accept": "text/event-stream"}
        if server.key:
            headers["Authorization"] = f"Bearer {server.key}"
        async with client.stream(
            "POST",
            f"{server.url.rstrip('/')}/{reader.path}",
            json=reader.body,
            headers=headers,
            extensions={"trace": self._note_sending},
        ) as response:
            self._answering = True
            status = response.status_code
            if status == 200:
                await self._read(response)
                return True
            refusal = await read_refusal(response)
            if status in ADAPTABLE and reader.adapt(refusal):
                return False
            raise RemoteError(told(status, refusal, server.model))

    async def _note_sending(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's account of a request: the clock starts once the connection is open."""
        if event.endswith("send_request_headers.started"):
            self._sent = time.perf_counter()

    async def _read(self, response: httpx.Response) -> None:
        reader, parser = self._reader, EventParser()
        if response.headers.get("content-type", "").split(";")[0].strip().lower() not in STREAMS:
            said = words(await read_refusal(response))
            raise RemoteError(f"did not answer with a stream of events{said}.")
        parts = response.aiter_bytes()
        while (part := await self._next(parts)) is not None:
            seconds = self.elapsed
            for kind, data in parser.feed(part):
                self._tell(reader.read(seconds, kind, data))
                if reader.finished:
                    return
        try:
            for kind, data in parser.end():
                self._tell(reader.read(self.elapsed, kind, data))
        except (json.JSONDecodeError, NoJson) as error:  # the connection was closed in mid-event
            if not reader.complete:
                raise RemoteError(BROKE_OFF) from error
        if not reader.finished:
            self._tell(reader.end())

    async def _next(self, parts: AsyncIterator[bytes]) -> bytes | None:
        """The next bytes; None at the end, which a whole answer does not wait for."""
        complete = self._reader.complete
        try:
            with anyio.fail_after(GRACE if complete else None):
                return await anext(parts, None)
        except (TimeoutError, httpx.TransportError):
            if not complete:
                raise
            return None


class EventsReader:
    """The event stream of ``d2f.serve``: the run as it is on the machine that decodes it."""

    path = "events"

    def __init__(self, server: Server, chat: Sequence[Message], config: DecodeConfig) -> None:
        self.body = {
            "messages": list(chat),
            "decoder": decoder_name(config),
            "config": config_to_dict(config),
        }
        self.texts: dict[int, str] = {}
        self._pieces: dict[int, str] = {}  # as they came: one may hold a part of a character
        self._placed: dict[int, dict[int, str]] = {}  # by step, of positions
        self._canvas: dict[int, int] = {}
        self.finished = False
        # Until the server tells its own.
        self.header = TraceHeader(
            config=config,
            model=f"a model at {server.host}",
            device="unknown",
            dtype="the server's",
            prompt_ids=(PROMPT,),
            stop_ids=(),
            host=server.host,
        )
        self.told = threading.Event()
        self._host, self._text = server.host, ""
        self._step = 0

    @property
    def complete(self) -> bool:
        return self.finished

    def read(self, seconds: float, kind: str, data: str) -> Iterator[StepEvent]:
        if not data.strip():
            return
        if kind == "header":
            header = Trace.from_json(whole(to_json(from_json(data), ascii=False))).header
            if header.config != self.header.config:
                raise RemoteError("decodes with other settings than it was asked for.")
            self.header = replace(header, host=self._host)
            self.told.set()
        elif kind == "step":
            told = from_json(data)
            self._pieces.update((int(token), _text(text)) for token, text in told["texts"])
            self.texts |= {
                int(token): whole(self._pieces[int(token)]) for token, _ in told["texts"]
            }
            event = self._checked(event_from_dict(told["event"]))
            self._canvas.update((each.position, each.token_id) for each in event.commits)
            placed = {int(p): whole(_text(text)) for p, text in told.get("placed", [])}
            if not placed.keys() <= self._canvas.keys():
                raise InvalidInput("not a position of this run")
            self._placed[event.step] = placed
            yield event
        elif kind == "end":
            self._text, self.finished = whole(_text(from_json(data)["text"])), True
        elif kind == "error":
            raise RemoteError(f"reported an error{words(from_json(data))}.")

    def rest(self) -> Iterator[StepEvent]:
        yield from ()

    def end(self) -> Iterator[StepEvent]:
        raise RemoteError(BROKE_OFF)

    def adapt(self, refusal: Any) -> bool:
        """Never: a run with other settings would be another run."""
        return False

    def answer(self, ids: Iterable[int]) -> str:
        """The server's own reading of the answer; of one that broke off, its tokens' texts."""
        if self._text:
            return self._text
        placed = {p: text for step in self._placed.values() for p, text in step.items()}
        told = enumerate(ids, len(self.header.prompt_ids))
        stops = self.header.stop_ids
        return whole("".join(placed.get(p, self._pieces[i]) for p, i in told if i not in stops))

    def placed_texts(self, event: StepEvent) -> dict[int, str]:
        """What tokens say by position, as the server places them with this event."""
        own = {each.position: self.texts[each.token_id] for each in event.commits}
        return own | self._placed[event.step]

    def accepted(self, feed: Feed, patience: float) -> bool:
        """Waits for the header; True once it is there, or the feed has said why it never will."""
        until = time.perf_counter() + patience
        while not (self.told.wait(POLL) or feed.ready()):
            if time.perf_counter() > until:
                return False
        return True

    def _checked(self, event: StepEvent) -> StepEvent:
        start = len(self.header.prompt_ids)
        end = start + self.header.config.max_new_tokens
        placed = all(start <= commit.position < end for commit in event.commits)
        known = all(commit.token_id in self.texts for commit in event.commits)
        if (
            not self._step == event.step < end - start
            or not placed
            or not known
            or event.seconds < 0
        ):
            raise InvalidInput("not an event of this run")
        self._step += 1
        return event


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput("a text must be text")
    return value


def reader_of(
    server: Server, chat: Sequence[Message], config: DecodeConfig
) -> ChatReader | EventsReader:
    """Reads what a server of its protocol tells."""
    if server.protocol == "events":
        return EventsReader(server, chat, config)
    assert isinstance(config, ARConfig)  # a server of chats decodes one token after the other
    return ChatReader(server, chat, config)
