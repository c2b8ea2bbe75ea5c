"""Requests' bodies in, runs out: whole, in chunks or step by step, while the client stays.

Knows no model and no decoder.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from d2f.serve.answers import DONE, Answer, sse
from d2f.serve.protocol import MAX_BODY
from d2f.serve.refused import Refused, refusal
from d2f.serve.worker import Job
from d2f.stops import Said
from d2f.strict_json import to_json

HEARTBEAT = 5.0  # seconds; keeps a waiting client's line alive
WAITING = b": waiting\n\n"
STOPPED = "the service stopped before the run was over"
JSON = "application/json"


class RunStream(StreamingResponse):
    """Server-sent events of a run, which is cancelled when the client is gone.

    An error ends the stream in words, as an ``event`` of its own kind if there are kinds.
    """

    def __init__(self, parts: AsyncIterator[bytes], job: Job[Any], event: str | None) -> None:
        super().__init__(
            _told(parts, event),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancel()


async def _told(parts: AsyncIterator[bytes], event: str | None) -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            yield part
    except Exception as error:
        yield sse(to_json(refusal(error).to_dict()), event)


async def whole(job: Job[Said], answer: Answer, request: Request) -> dict[str, Any]:
    """The whole answer; its run is cancelled when the client is gone."""
    watch = asyncio.create_task(_cancel_when_gone(request, job))
    try:
        told = [said async for said in job.events(HEARTBEAT) if said]
    finally:
        watch.cancel()
        job.cancel()
    if not told or told[-1].reason is None:
        raise Refused(503, STOPPED)
    return answer.whole("".join(said.text for said in told), told[-1])


async def chunks(job: Job[Said], answer: Answer, counted: bool) -> AsyncIterator[bytes]:
    for chunk in answer.first():
        yield chunk
    last = Said("")
    async for said in job.events(HEARTBEAT):
        if said is None:
            yield WAITING
            continue
        last = said
        if said.text:
            yield answer.chunk(said.text)
    if last.reason is None:
        raise Refused(503, STOPPED)
    yield answer.end(last)
    if counted:
        yield answer.counts(last)
    yield DONE


async def body(request: Request) -> bytes:
    """The request's body, refused as soon as it is too long.

    A page of another site may send text or forms to a service on the reader's machine unasked, but
    no JSON: that is why what is declared as something else is refused.
    """
    media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media != JSON:
        raise Refused(415, f"the body is declared as {media!r}; send Content-Type: {JSON}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Refused(413, f"the request is longer than {MAX_BODY:,} bytes")
    return bytes(body)


async def _cancel_when_gone(request: Request, job: Job[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancel()
