"""Chunks of OpenAI's chat completions as events of an AR run.

Knows nothing of HTTP: :mod:`app.lanes.remote` sends the request and stamps what comes.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from d2f.config import MAX_TOKENS, ARConfig, DecodeConfig
from d2f.errors import InvalidInput
from d2f.events import CLIENT, FINISH_REASONS, Commit, StepEvent, Trace, TraceHeader
from d2f.tokenizer import Message

from ..characters import divide, whole
from ..conversation import THOUGHTS_BEGIN, THOUGHTS_END, spoken
from .refusal import UNKNOWN, named_fields, quote, text_of, words
from .server import RemoteError, Server

PROMPT, STOP, FIRST_PIECE = 0, 1, 2
STOP_TEXT = "<stop>"
FAR = 32  # pieces for each token asked for; a server that sends more has no end
MAX_LABEL = 200  # characters, those a recording takes
BROKE_OFF = "broke off in the middle of its answer."
CHUNK = "chat.completion.chunk"
# Reasons as servers and gateways write them; all others break an answer off.
REASONS = dict.fromkeys(
    "stop eos eos_token end_turn stop_sequence end endoftext complete completed finished".split(),
    "stop",
) | dict.fromkeys(
    "length max_tokens max_new_tokens max_output_tokens max_completion_tokens model_length "
    "token_limit incomplete".split(),
    "length",
)
NO_REASON = ("", "null", "none")
# Fields without which a server can be asked, and what that changes.
OPTIONAL = {
    "stream_options": "without stream_options",
    "seed": "without seed",
    "top_k": "without top_k",
    "top_p": "without top_p",
    "temperature": "at its own temperature",
}
OLDER, NEWER = "max_tokens", "max_completion_tokens"


class ChatReader:
    """Makes an event of every piece of text, and in the end a run of as many tokens as it was.

    A server's own count of its tokens is believed. One that tells none has written as many as it
    sent pieces, but no more than it was asked for.
    """

    path = "chat/completions"

    def __init__(self, server: Server, chat: Sequence[Message], config: ARConfig) -> None:
        self.body: dict[str, Any] = {
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
        self._server, self._limit = server, config.max_new_tokens
        self._ids: dict[str, int] = {}
        self._step, self._last = 0, 0.0
        self._reason, self._ended = "", 0.0
        self._count = 0  # tokens by the server's own count; 0: none told
        self._changes: list[str] = []
        self._thinking = False
        self._held: tuple[float, str, str] | None = None
        self._said: list[str] = []
        self.header = self._header(config)

    @property
    def complete(self) -> bool:
        """Whether the server has said why the answer ended, and nothing after that."""
        return self._reason in FINISH_REASONS and self._ended >= self._last

    def read(self, seconds: float, kind: str, data: str) -> Iterator[StepEvent]:
        data = data.strip()
        if data == "[DONE]":
            self.finished = True
            yield from self.end()
            return
        chunk = _chunk(kind, data)
        self._count = _count(chunk) or self._count
        for choice in filter(None, (chunk.get("choices") or [])[:1]):
            if choice.get("error"):
                raise RemoteError(f"reported an error{words(choice)}.")
            for thought, text in _texts(_delta(choice, first=not self._step)):
                yield from self._hear(seconds, thought, text)
            if reason := _reason(choice):
                self._reason, self._ended = reason, seconds

    def rest(self) -> Iterator[StepEvent]:
        """What was held back for the rest of a character."""
        if self._held:
            (seconds, text, begun), self._held = self._held, None
            yield self._event(seconds, text + whole(begun))

    def end(self) -> Iterator[StepEvent]:
        yield from self.rest()
        if self._step == FAR * self._limit:
            return
        reason = self._reason or ("length" if self._step >= self._limit else "")
        if not reason:
            raise RemoteError(BROKE_OFF)
        if reason not in FINISH_REASONS:
            raise RemoteError(f"ended its answer for another reason: {quote(reason)}.")
        missing = max(self._count - self._step, 0)
        commits: list[int | None] = [self._id("")] * missing
        if reason == "length":
            commits = commits or [None]
        else:
            commits = [*commits[1:], STOP]  # a stop token counts as one, as in every lane
        for number, token in enumerate(commits, 1):
            last = reason if number == len(commits) else None
            yield self._step_event(max(self._ended, self._last), token, last)

    def adapt(self, refusal: Any) -> bool:
        """Asks otherwise, if a refusal names a field that can be left out or has a newer name."""
        optional = self.body.keys() & {OLDER, *OPTIONAL}
        names = named_fields(refusal, self.body, optional)
        # Of several, one without which all stays the same.
        same = "top_p" in names and self.body["top_p"] == 1
        name = "top_p" if same else next(iter(names), "")
        said = text_of(refusal)
        if name == OLDER and (NEWER in said or UNKNOWN.search(said)):
            self.body[NEWER] = self.body.pop(OLDER)
            self._changes.append(f"with {NEWER}")
            return True
        if name in OPTIONAL:
            del self.body[name]
            self._changes.append(OPTIONAL[name])
            return True
        return False

    def answer(self, ids: Iterable[int]) -> str:
        """Readable text of the answer's tokens, thoughts included."""
        return "".join(self.texts[token] for token in ids if token != STOP)

    def spoken(self, trace: Trace) -> str:
        """The answer alone."""
        return spoken(whole("".join(self._said)))

    def counted(self, trace: Trace) -> Trace:
        """The run as one of as many tokens as the server wrote, however it cut them up."""
        tokens = min(self._count or self._limit, trace.tokens)
        config = replace(trace.header.config, max_new_tokens=max(self._limit, tokens))
        same = not tokens or len(trace.events) == tokens
        events = trace.events if same else self._merged(trace, tokens)
        return replace(trace, header=self._header(config), events=events)

    def _merged(self, trace: Trace, tokens: int) -> tuple[StepEvent, ...]:
        """So many tokens, each of as many pieces as the next; the stop is one by itself."""
        stops = trace.finish_reason == "stop"
        pieces = trace.events[:-1] if stops else trace.events
        groups = tokens - stops
        cuts = [len(pieces) * group // groups for group in range(groups + 1)] if groups else []
        parts = [pieces[start:end] for start, end in pairwise(cuts)]
        ids = [self._id("".join(map(self._text, part))) for part in parts]
        if stops:
            parts.append(trace.events[-1:] if groups else trace.events)
            ids.append(STOP)
        return tuple(
            StepEvent(
                step,
                math.fsum(event.seconds for event in part),
                (step, step + 1),
                (Commit(step + 1, token, 0.0),),
                (),
                step + 1,
                part[-1].finish_reason,
            )
            for step, (part, token) in enumerate(zip(parts, ids, strict=True))
        )

    def _text(self, event: StepEvent) -> str:
        return self.answer(commit.token_id for commit in event.commits)

    def _header(self, config: DecodeConfig) -> TraceHeader:
        where = f"client-timed at {self._server.host}"
        asked = f", asked {', '.join(self._changes)}" if self._changes else ""
        room = max(MAX_LABEL - len(f", {where}{asked}"), 1)
        name = self._server.model
        name = name if len(name) <= room else f"{name[: room - 1]}…"
        return TraceHeader(
            config=config,
            model=f"{name}, {where}{asked}",
            device="unknown",
            dtype="the server's",
            prompt_ids=(PROMPT,),
            stop_ids=(STOP,),
            clock=CLIENT,
            host=self._server.host,
            counted=bool(self._count),
        )

    def _hear(self, seconds: float, thought: bool, text: str) -> Iterator[StepEvent]:
        """A piece; one that ends within a character waits for the next one's beginning."""
        mark = ""
        if thought != self._thinking:
            yield from self.rest()
            mark = THOUGHTS_BEGIN if thought else THOUGHTS_END
            mark = f"\n\n{mark}" if thought and self._step else mark
            self._thinking = thought
        if not thought:
            self._said.append(text)
        begun = ""
        if self._held:
            (before, ready, begun), self._held = self._held, None
            yield self._event(before, ready)
        ready, begun = divide(begun + text)
        if begun:
            self._held = seconds, mark + ready, begun
        else:
            yield self._event(seconds, mark + ready)

    def _event(self, seconds: float, text: str) -> StepEvent:
        last = self._step + 1 == FAR * self._limit
        self.finished = self.finished or last
        return self._step_event(seconds, self._id(text), "length" if last else None)

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


def _chunk(kind: str, data: str) -> dict[str, Any]:
    """What may hold text; empty for what only keeps the line alive, or is for other readers.

    Raises:
        RemoteError: it tells of an error.
        ValueError: it is broken, and may have held text.
    """
    ours = kind in ("", "message")
    try:
        chunk = json.loads(data)
    except ValueError:
        if kind == "error":
            chunk = data
        elif ours and ("{" in data or "}" in data):
            raise
        else:
            return {}
    if isinstance(chunk, list) and len(chunk) == 1:  # as some gateways wrap an error
        chunk = chunk[0]
    failed = isinstance(chunk, dict) and (
        any(chunk.get(name) for name in ("error", "error_code"))
        or "error" in (chunk.get("object"), chunk.get("type"))
    )
    if failed or kind == "error":
        raise RemoteError(f"reported an error{words(chunk)}.")
    if not isinstance(chunk, dict):
        return {}
    return chunk if ours or chunk.get("object") == CHUNK else {}


def _count(chunk: dict[str, Any]) -> int:
    """Tokens of the answer by the server's own count; 0 where it tells none that can be."""
    for place in (chunk, chunk.get("x_groq"), *(chunk.get("choices") or [])[:1]):
        usage = place.get("usage") if isinstance(place, dict) else None
        told = str(usage.get("completion_tokens")) if isinstance(usage, dict) else ""
        if told.isdecimal() and len(told) < 10 and 1 <= int(told) <= MAX_TOKENS:
            return int(told)
    return 0


def _delta(choice: dict[str, Any], first: bool) -> dict[str, Any]:
    """What a choice adds to the answer. Some servers give the whole of it in one other field."""
    if "delta" in choice or not first:
        return choice.get("delta") or {}
    return choice.get("message") or {"content": choice.get("text")}


def _texts(delta: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    """Each text of a chunk, and whether it was thought rather than said."""
    # Some servers send one thought under both names, the older and the newer.
    names = ("reasoning_content", "reasoning")
    thoughts = dict.fromkeys(filter(None, (_plain(delta.get(name)) for name in names)))
    told = [(True, text) for text in thoughts or [_plain(delta.get("reasoning_details"))]]
    for content in (delta.get("content"), delta.get("refusal")):
        parts = content if isinstance(content, list) else [content]
        told += [(_is_thought(part), _plain(part)) for part in parts]
    for thought, group in groupby((each for each in told if each[1]), key=itemgetter(0)):
        yield thought, "".join(text for _, text in group)


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _plain(content: Any) -> str:
    """The text of a string or of parts; of pictures and the like there is none."""
    if isinstance(content, list):
        return "".join(map(_plain, content))
    if isinstance(content, dict):
        return "".join(_plain(content.get(name)) for name in ("text", "thinking", "summary"))
    if content is None:
        return ""
    if not isinstance(content, str):
        raise InvalidInput("a piece must be text")
    return content


def _reason(choice: dict[str, Any]) -> str:
    """Why an answer ended, in our words where they are known; "" while it goes on."""
    told = choice.get("finish_reason")
    told = told.get("type") if isinstance(told, dict) else told
    word = str(told or "").strip().lower().replace("-", "_").removeprefix("finish_reason_")
    return "" if word in NO_REASON else REASONS.get(word, str(told))
