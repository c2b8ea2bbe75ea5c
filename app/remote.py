"""A run on another machine as the same events as a run here, over HTTP and server-sent events.

- :class:`ChatReader`: any OpenAI-compatible server (vLLM, SGLang, llama.cpp). It tells no times and
  no token ids, so events are **timed at the client**: an event's seconds are those between two
  arrivals, the first one's from sending the request; opening the connection is not counted, as a
  running client would have one open. Every piece of text the server streams is one token with an
  id of this lane's own; the prompt is one position; confidences are 0, for they are not told. If
  the server's own count is higher (it sent several tokens in a piece), the missing ones follow at
  the end without text and in no time, so that tokens/s is by the server's count.
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
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import anyio
import httpx
from anyio.from_thread import start_blocking_portal

from d2f.config import ARConfig, DecodeConfig, config_to_dict, decoder_name
from d2f.errors import D2FError, InvalidInput
from d2f.events import MALFORMED, Commit, StepEvent, Trace, TraceHeader, event_from_dict
from d2f.tokenizer import Message

from .board import CLIENT_TIMED, ELSEWHERE

CONNECT = 5.0  # seconds
POLL = 0.02
LONGEST = 900.0  # seconds a run may take
MAX_LINE = 1_048_576  # bytes
MAX_REFUSAL = 65_536  # bytes
MAX_QUOTE = 120  # characters of a server's own words
PROMPT, STOP, FIRST_PIECE = 0, 1, 2
STOP_TEXT = "<stop>"


class RemoteError(D2FError):
    """A server did not give what it was asked for; the message tells a visitor why."""


@dataclass(frozen=True)
class Server:
    """Where a lane runs. ``url`` is the base, such as ``http://host:8000/v1``.

    ``protocol`` is ``"chat"`` for OpenAI-compatible servers, which need a ``model``, or
    ``"events"`` for ``d2f.serve``. ``timeout`` is the longest silence, in seconds.
    """

    url: str
    model: str = ""
    protocol: Literal["chat", "events"] = "chat"
    key: str = field(default="", repr=False)
    timeout: float = 60.0

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidInput(
                f"server address must be a URL, got {self.url!r}: {error}"
            ) from error
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidInput(f"server address must begin with http:// or https://, got {url}")
        if self.protocol == "chat" and not self.model:
            raise InvalidInput(f"the server at {self.host} needs the name of a model")

    @property
    def host(self) -> str:
        """Host and port, without what else the address may hold."""
        url = httpx.URL(self.url)
        return f"{url.host}:{url.port}" if url.port else url.host


class Reader(Protocol):
    """Makes events of what one server sends; remembers the texts of their tokens."""

    path: str
    body: dict[str, Any]
    texts: dict[int, str]
    finished: bool

    def read(self, seconds: float, kind: str, data: str) -> Iterable[StepEvent]:
        """The events of one message that came so long after the request."""

    def end(self) -> Iterable[StepEvent]:
        """The stream is over: its last events, or ``RemoteError`` if the answer is not whole."""


class Feed:
    """One request whose events a thread of its own reads, stamps and keeps until asked for."""

    def __init__(self, server: Server, reader: Reader) -> None:
        self._server, self._reader = server, reader
        self._items: deque[StepEvent | Exception | None] = deque()
        self._changed = threading.Condition()
        self._over = False
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
        name = f"The server at {self._server.host}"
        try:
            with anyio.fail_after(LONGEST):
                await self._request()
            self._tell([None])
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._tell([RemoteError(f"{name} cannot be reached.")])
        except httpx.TimeoutException:
            text = f"{name} sent nothing for {self._server.timeout:g} seconds."
            self._tell([RemoteError(text)])
        except TimeoutError:
            self._tell([RemoteError(f"{name} took longer than {LONGEST:g} seconds.")])
        except httpx.HTTPError:
            self._tell([RemoteError(f"{name} broke off in the middle of its answer.")])
        except RemoteError as error:
            self._tell([RemoteError(f"{name} {error}")])
        except (ValueError, *MALFORMED):
            self._tell([RemoteError(f"{name} sent what is no event of its protocol.")])
        except Exception as error:
            self._tell([error])

    async def _request(self) -> None:
        server, reader = self._server, self._reader
        headers = {"Accept": "text/event-stream"}
        if server.key:
            headers["Authorization"] = f"Bearer {server.key}"
        timeout = httpx.Timeout(server.timeout, connect=CONNECT)
        # Where nothing is encrypted, no certificates are read, which takes a tenth of a second.
        verify = httpx.URL(server.url).scheme == "https"
        async with (
            httpx.AsyncClient(timeout=timeout, verify=verify) as client,
            client.stream(
                "POST",
                f"{server.url.rstrip('/')}/{reader.path}",
                json=reader.body,
                headers=headers,
                extensions={"trace": self._note_sending},
            ) as response,
        ):
            await _check(response, server)
            async for seconds, kind, data in self._messages(response):
                self._tell(reader.read(seconds, kind, data))
                if reader.finished:
                    return
        self._tell(reader.end())

    async def _note_sending(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's account of a request: the clock starts once the connection is open."""
        if event.endswith("send_request_headers.started"):
            self._sent = time.perf_counter()

    async def _messages(self, response: httpx.Response) -> AsyncIterator[tuple[float, str, str]]:
        """Server-sent events: seconds of arrival, kind and data."""
        kind, data = "", []
        async for seconds, line in self._lines(response):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif not line and data:
                yield seconds, kind, "\n".join(data)
                kind, data = "", []

    async def _lines(self, response: httpx.Response) -> AsyncIterator[tuple[float, str]]:
        # Not httpx's own lines, which also end at U+2028 and other characters of plain text.
        rest = b""
        async for part in response.aiter_bytes():
            seconds = self.elapsed
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > MAX_LINE:
                raise RemoteError(f"sent a line longer than {MAX_LINE:,} bytes.")
            for line in lines:
                yield seconds, line.removesuffix(b"\r").decode()


class ChatReader:
    """Chunks of OpenAI's chat completions as events of an AR run, one a piece of text."""

    path = "chat/completions"

    def __init__(self, server: Server, chat: Sequence[Message], config: ARConfig) -> None:
        self.header = TraceHeader(
            config=config,
            model=f"{server.model}, {CLIENT_TIMED} at {server.host}",
            device=f"{CLIENT_TIMED}, {server.host}",
            dtype="the server's",
            prompt_ids=(PROMPT,),
            stop_ids=(STOP,),
        )
        self.body = {
            "model": server.model,
            "messages": list(chat),
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "seed": config.seed,
        }
        if config.top_k:
            self.body["top_k"] = config.top_k  # not OpenAI's, but known to all three servers
        self.texts = {STOP: STOP_TEXT}
        self.finished = False
        self._ids: dict[str, int] = {}
        self._limit = config.max_new_tokens
        self._step, self._last = 0, 0.0
        self._reason, self._counted = "", 0
        self._ended = 0.0

    def read(self, seconds: float, kind: str, data: str) -> Iterator[StepEvent]:
        if data == "[DONE]":
            self.finished = True
            yield from self.end()
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise RemoteError(f"reported an error{_words(chunk)}.")
        self._counted = (chunk.get("usage") or {}).get("completion_tokens") or self._counted
        for choice in chunk["choices"][:1]:
            # What a model thinks aloud is decoded like the rest, and takes as long.
            delta = choice.get("delta") or {}
            names = ("content", "reasoning_content", "reasoning")
            piece = next((delta[name] for name in names if delta.get(name)), "")
            if piece:
                yield self._event(seconds, piece)
            if choice.get("finish_reason"):
                self._reason, self._ended = choice["finish_reason"], seconds

    def end(self) -> Iterator[StepEvent]:
        if self._step == self._limit:
            return
        if not self._reason:
            raise RemoteError("broke off in the middle of its answer.")
        if self._reason not in ("stop", "length"):
            raise RemoteError(f"ended its answer for another reason: {_quote(self._reason)}.")
        missing = max(int(self._counted) - self._step, 0)
        if self._reason == "length":
            missing = min(missing, self._limit - self._step)
            commits = [self._id("")] * missing or [None]
        else:
            # A stop token counts as one, as in every lane.
            missing = min(max(missing, 1), self._limit - self._step)
            commits = [*[self._id("")] * (missing - 1), STOP]
        for number, token in enumerate(commits, 1):
            reason = self._reason if number == len(commits) else None
            yield self._step_event(max(self._ended, self._last), token, reason)

    def _event(self, seconds: float, piece: Any) -> StepEvent:
        if not isinstance(piece, str):
            raise InvalidInput("a piece must be text")
        last = self._step + 1 == self._limit
        self.finished = last  # a server that goes on beyond what was asked is cut off
        return self._step_event(seconds, self._id(piece), "length" if last else None)

    def _step_event(self, seconds: float, token: int | None, reason: str | None) -> StepEvent:
        """Windows and cache are those of an AR run whose prompt is one position."""
        step, passed = self._step, seconds - self._last
        commits = () if token is None else (Commit(step + 1, token, 0.0),)
        self._step, self._last = step + 1, seconds
        return StepEvent(step, passed, (step, step + 1), commits, (), step + 1, reason)

    def _id(self, text: str) -> int:
        """Ids of this lane's own, by the first place of a text in the answer."""
        token = self._ids.setdefault(text, FIRST_PIECE + len(self._ids))
        self.texts[token] = text
        return token

    def answer(self, ids: Iterable[int]) -> str:
        """Readable text of the answer's tokens."""
        return "".join(self.texts[token] for token in ids if token != STOP)


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
        self.finished = False
        # Until the server tells its own.
        self.header = TraceHeader(
            config=config,
            model=f"a model at {server.host}",
            device=f"unknown{ELSEWHERE}{server.host}",
            dtype="the server's",
            prompt_ids=(PROMPT,),
            stop_ids=(),
        )
        self.told = threading.Event()
        self._host, self._text = server.host, ""
        self._step = 0

    def read(self, seconds: float, kind: str, data: str) -> Iterator[StepEvent]:
        if kind == "header":
            header = Trace.from_json(data).header
            if header.config != self.header.config:
                raise RemoteError("decodes with other settings than it was asked for.")
            self.header = replace(header, device=f"{header.device}{ELSEWHERE}{self._host}")
            self.told.set()
        elif kind == "step":
            told = json.loads(data)
            self.texts.update((int(token), str(text)) for token, text in told["texts"])
            yield self._checked(event_from_dict(told["event"]))
        elif kind == "end":
            self._text, self.finished = str(json.loads(data)["text"]), True
        elif kind == "error":
            raise RemoteError(f"reported an error{_words(json.loads(data))}.")

    def end(self) -> Iterator[StepEvent]:
        raise RemoteError("broke off in the middle of its answer.")

    def answer(self, ids: Iterable[int]) -> str:
        """The server's own reading of the answer; of one that broke off, its tokens' texts."""
        stops = self.header.stop_ids
        return self._text or "".join(self.texts[i] for i in ids if i not in stops)

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


async def _check(response: httpx.Response, server: Server) -> None:
    """Anything but a stream of events becomes words."""
    status = response.status_code
    if status == 200:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        raise RemoteError("did not answer with a stream of events.")
    said = _words(await _beginning(response))
    if status in (401, 403):
        raise RemoteError(f"refused the API key ({status}){said}.")
    if status == 404:
        asked = f"the model {_quote(server.model)} or " if server.model else ""
        raise RemoteError(f"does not know {asked}the address asked for (404){said}.")
    if status in (429, 503):
        raise RemoteError(f"is busy ({status}){said}.")
    raise RemoteError(f"answered with HTTP status {status}{said}.")


async def _beginning(response: httpx.Response) -> Any:
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_REFUSAL:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(refusal: Any) -> str:
    """What a server says of its error, where it says it in one of the usual places."""
    error = refusal.get("error", refusal) if isinstance(refusal, dict) else None
    names = ("message", "detail")
    said = next((error[n] for n in names if error.get(n)), "") if isinstance(error, dict) else error
    return f": {_quote(said)}" if isinstance(said, str) and said.strip() else ""


def _quote(text: Any) -> str:
    """A stranger's words: one short line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line if len(line) <= MAX_QUOTE else line[: MAX_QUOTE - 1] + "…"
    return f"“{line.removesuffix('.')}”"
