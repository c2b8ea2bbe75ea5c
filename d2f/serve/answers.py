"""Answers in OpenAI's objects, whole or in chunks. Knows no HTTP server and no model."""

import time
from typing import Any, ClassVar
from uuid import uuid4

from d2f.stops import Said
from d2f.strict_json import to_json

DONE = b"data: [DONE]\n\n"


def sse(data: str, event: str | None = None) -> bytes:
    """One server-sent event; JSON has no line breaks of its own."""
    return ((f"event: {event}\n" if event else "") + f"data: {data}\n\n").encode()


class Answer:
    """One answer to a prompt of ``prompt_tokens`` tokens: what its kinds share."""

    prefix: ClassVar[str]
    kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    def __init__(self, model: str, prompt_tokens: int) -> None:
        created = int(time.time())
        self._head = {"id": f"{self.prefix}-{uuid4().hex}", "created": created, "model": model}
        self._prompt_tokens = prompt_tokens

    def whole(self, text: str, last: Said) -> dict[str, Any]:
        """The answer as one object."""
        choice = {"index": 0, **self._whole(text), "finish_reason": last.reason}
        return {**self._head, "object": self.kind, "choices": [choice], "usage": self._usage(last)}

    def first(self) -> list[bytes]:
        """Chunks before the first one of text."""
        return []

    def chunk(self, text: str) -> bytes:
        """More of the text."""
        return self._chunk(self._part(text))

    def end(self, last: Said) -> bytes:
        """The chunk that says why the answer is over."""
        return self._chunk(self._part(""), last.reason)

    def counts(self, last: Said) -> bytes:
        """The last chunk of a stream that was asked for usage."""
        return self._event({"choices": [], "usage": self._usage(last)})

    def _whole(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _part(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _chunk(self, part: dict[str, Any], reason: str | None = None) -> bytes:
        return self._event({"choices": [{"index": 0, **part, "finish_reason": reason}]})

    def _event(self, data: dict[str, Any]) -> bytes:
        return sse(to_json({**self._head, "object": self.chunk_kind, **data}))

    def _usage(self, last: Said) -> dict[str, int]:
        prompt = self._prompt_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": last.tokens}
        return counts | {"total_tokens": prompt + last.tokens}


class ChatAnswer(Answer):
    """An answer of ``/v1/chat/completions``."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first(self) -> list[bytes]:
        return [self._chunk({"delta": {"role": "assistant", "content": ""}})]

    def _whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def _part(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}


class TextAnswer(Answer):
    """An answer of ``/v1/completions``."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def _whole(self, text: str) -> dict[str, Any]:
        return {"text": text, "logprobs": None}

    _part = _whole
