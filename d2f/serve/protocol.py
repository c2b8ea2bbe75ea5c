"""What clients may ask, and what they are answered: OpenAI's objects, and the event stream's.

Strict: a field that would have no effect is refused, not ignored. Knows no HTTP server, no model.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from d2f.config import DecodeConfig, config_from_dict, config_to_dict, decoder_name
from d2f.events import Trace
from d2f.tokenizer import Message

MAX_BODY = 1_048_576  # bytes
MAX_MESSAGES = 256
MAX_INTEGER, MAX_SEED = 2**31 - 1, 2**63 - 1
KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
DONE = b"data: [DONE]\n\n"
# The one value of a field that changes nothing, which many clients send.
Zero = Annotated[float, Field(ge=0, le=0)]


class Refused(Exception):
    """A request that is answered with an error: ``param`` names the field at fault."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's error object."""
        server = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = KINDS.get(self.status, server)
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(_Strict):
    """A part of a message's content; of OpenAI's kinds of parts, only text."""

    type: Literal["text"]
    text: str


class ChatMessage(_Strict):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> Message:
        """As the tokenizer takes it."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "content": "".join(part.text for part in self.content)}


class StreamOptions(_Strict):
    """``include_usage`` asks for a last chunk with token counts."""

    include_usage: bool = False


Chat = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


class ChatRequest(_Strict):
    """The body of ``/v1/chat/completions``; ``settings`` are the decoder's own, by name.

    What is left out takes the service's defaults. ``user`` names a caller and has no effect.
    """

    model: str
    messages: Chat
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    settings: dict[str, Any] = {}
    user: str | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    stop: Annotated[list[str], Field(max_length=0)] | None = None

    def changes(self) -> dict[str, Any]:
        """Decoder settings that the request names."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise Refused(400, "max_tokens and max_completion_tokens exclude each other")
        limit = self.max_tokens if self.max_tokens is not None else self.max_completion_tokens
        shared = {
            "max_new_tokens": limit,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": self.seed,
        }
        given = {name: value for name, value in shared.items() if value is not None}
        twice = sorted(given.keys() & self.settings.keys())
        if twice:
            raise Refused(400, f"{twice[0]} is given twice", "settings")
        return {**given, **self.settings}


class EventsRequest(_Strict):
    """The body of ``/v1/events``: a chat, and settings of ``decoder`` (None: the service's)."""

    messages: Chat
    decoder: str | None = None
    config: dict[str, Any] = {}


def parse(kind: type[_Strict], body: bytes) -> Any:
    """A request of this kind, or ``Refused`` naming the field at fault."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(400, f"{where}: {first['msg']}" if where else first["msg"], where) from error


def configured(default: DecodeConfig, changes: dict[str, Any], limit: int) -> DecodeConfig:
    """The default with changes, whose cost is bounded; ``Refused`` for what cannot be."""
    for name, value in changes.items():
        most = MAX_SEED if name == "seed" else MAX_INTEGER
        if isinstance(value, (int, float)) and value > most:
            raise Refused(400, f"{name} must be at most {most}, got {value}", name)
    try:
        config = config_from_dict(decoder_name(default), config_to_dict(default) | changes)
    except ValueError as error:
        raise Refused(400, str(error)) from error
    if config.max_new_tokens > limit:
        message = f"at most {limit} tokens may be asked for, got {config.max_new_tokens}"
        raise Refused(400, message, "max_tokens")
    return config


def sse(data: str, event: str | None = None) -> bytes:
    """One server-sent event; JSON has no line breaks of its own."""
    return ((f"event: {event}\n" if event else "") + f"data: {data}\n\n").encode()


def usage(trace: Trace) -> dict[str, int]:
    """Token counts; an answer's stop token counts, as everywhere here."""
    prompt = len(trace.header.prompt_ids)
    counts = {"prompt_tokens": prompt, "completion_tokens": trace.tokens}
    return counts | {"total_tokens": prompt + trace.tokens}


class Answer:
    """One answer in OpenAI's objects, whole or in chunks."""

    def __init__(self, run_id: str, model: str, created: int) -> None:
        self._head = {"id": f"chatcmpl-{run_id}", "created": created, "model": model}

    def whole(self, trace: Trace) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": trace.text},
            "finish_reason": trace.finish_reason,
        }
        return {**self._head, "object": "chat.completion", "choices": [choice]} | {
            "usage": usage(trace)
        }

    def chunk(self, delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return self._chunk([choice])

    def counts(self, trace: Trace) -> bytes:
        """The last chunk of a stream that was asked for usage."""
        return self._chunk([], usage=usage(trace))

    def _chunk(
        self, choices: Sequence[dict[str, Any]], usage: dict[str, int] | None = None
    ) -> bytes:
        data = {**self._head, "object": "chat.completion.chunk", "choices": choices}
        return sse(json.dumps(data | ({"usage": usage} if usage else {})))
