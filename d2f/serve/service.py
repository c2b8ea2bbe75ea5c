"""One model behind HTTP: OpenAI's chat completions, and the run itself as a stream of events.

- ``GET /v1/models``, ``GET /health``
- ``POST /v1/chat/completions``: whole or streamed. A diffusion model's text is sent as far as it
  is readable: up to the first position still masked.
- ``POST /v1/events``: server-sent events ``header`` (a Trace without events), ``step`` (a StepEvent
  and the texts of tokens not seen before), ``end`` (the readable answer) or ``error``.

Requests are decoded one after the other. Whoever closes the connection stops their run within one
step. Knows no decoding rule and no command line.
"""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from d2f.checkpoint import Model
from d2f.config import ARConfig, D2FConfig, DecodeConfig
from d2f.decode import generate, prepare, stream, trace_header
from d2f.engine import Engine, load_engine
from d2f.errors import InvalidInput
from d2f.events import StepEvent, Trace, TraceHeader, event_to_dict
from d2f.readable import ReadableText
from d2f.registry import PAIRS, PUBLISHED_PAIRS, catalogue_decoder, default_config
from d2f.serve.protocol import (
    DONE,
    MAX_BODY,
    Answer,
    ChatRequest,
    EventsRequest,
    Refused,
    configured,
    parse,
    sse,
)
from d2f.serve.worker import Busy, Job, Worker
from d2f.tokenizer import Message

WARM_UP_TOKENS = 32
HEARTBEAT = 5.0  # seconds; keeps a waiting client's line alive
WAITING = b": waiting\n\n"
FAILED = "the run failed on the server; its log says more"
STOPPED = "the service stopped before the run was over"
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What is served and within which limits; ``queue`` runs wait behind the one that runs.

    ``key``, if any, is what clients must send as their bearer token.
    """

    model: str
    adapter: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "auto"
    quantize: str | None = None
    compile: bool = False
    queue: int = 16
    max_tokens: int = 2048
    key: str = ""

    def __post_init__(self) -> None:
        for name, least in (("queue", 0), ("max_tokens", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InvalidInput(f"{name} must be an integer >= {least}, got {value!r}")


@dataclass(frozen=True)
class Run:
    """A run that waits or works: its header and its events."""

    header: TraceHeader
    job: Job


class RunStream(StreamingResponse):
    """Server-sent events of a run, which is cancelled when the client is gone."""

    def __init__(self, content: AsyncIterator[bytes], job: Job) -> None:
        super().__init__(
            content, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancel()


def load_app(options: Options) -> FastAPI:
    """The service with its model loaded and warm. A model that does not load raises."""
    engine = Engine(**{each.name: getattr(options, each.name) for each in fields(Engine)})
    model = load_engine(options.model, engine, options.adapter)
    config = _default(model)
    warm = min(WARM_UP_TOKENS, options.max_tokens)
    hello = model.tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    generate(model, hello, replace(config, max_new_tokens=warm))
    return create_app(model, config, options)


def create_app(model: Model, config: DecodeConfig, options: Options) -> FastAPI:
    """The service around a loaded model; ``config`` holds the default settings."""
    service = Service(model, config, options)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.worker.close()

    app = FastAPI(title="d2f", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    allowed = [Depends(service.check_key)]
    app.add_api_route("/health", service.health)
    app.add_api_route("/v1/models", service.models, dependencies=allowed)
    for path, endpoint in (
        ("/v1/chat/completions", service.chat),
        ("/v1/events", service.events),
    ):
        app.add_api_route(
            path, endpoint, methods=["POST"], dependencies=allowed, response_model=None
        )
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(HTTPException, _refuse_address)
    app.add_exception_handler(Exception, _refuse_all)
    return app


class Service:
    """The endpoints."""

    def __init__(self, model: Model, config: DecodeConfig, options: Options) -> None:
        self.worker = Worker(options.queue)
        self._model, self._config, self._options = model, config, options
        self._started = int(time.time())

    async def check_key(self, request: Request) -> None:
        """Refuses whoever does not send the key, where there is one."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = self._options.key
        if key and not hmac.compare_digest(sent.encode(), key.encode()):
            raise Refused(401, "the API key is missing or wrong", code="invalid_api_key")

    async def health(self) -> dict[str, str]:
        """Answers as long as the service does."""
        return {"status": "ok"}

    async def models(self) -> dict[str, Any]:
        """OpenAI's list of models: the one that is served."""
        model = {"id": self._model.name, "object": "model", "created": self._started}
        size = {"owned_by": "d2f", "max_model_len": self._model.config.max_length}
        return {"object": "list", "data": [model | size]}

    async def chat(self, request: Request) -> Response:
        """OpenAI's chat completions."""
        asked: ChatRequest = parse(ChatRequest, await _body(request))
        if asked.model != self._model.name:
            message = f"the model {asked.model!r} is not served here; {self._model.name!r} is"
            raise Refused(404, message, "model", "model_not_found")
        if asked.stream_options and not asked.stream:
            raise Refused(400, "stream_options needs stream", "stream_options")
        counted = asked.stream_options is not None and asked.stream_options.include_usage
        chat = [message.plain() for message in asked.messages]
        run = await self._start(chat, self._config, asked.changes())
        answer = Answer(uuid4().hex, self._model.name, int(time.time()))
        if asked.stream:
            return RunStream(self._chunks(run, answer, counted), run.job)
        trace = await self._finished(run, request)
        return JSONResponse(answer.whole(trace))

    async def events(self, request: Request) -> Response:
        """The run itself, step by step."""
        asked: EventsRequest = parse(EventsRequest, await _body(request))
        chat = [message.plain() for message in asked.messages]
        run = await self._start(chat, self._decoder(asked.decoder), asked.config)
        return RunStream(self._steps(run), run.job)

    def _decoder(self, decoder: str | None) -> DecodeConfig:
        if decoder is None:
            return self._config
        try:
            return default_config(self._model.name, decoder, PAIRS | PUBLISHED_PAIRS)
        except KeyError as error:
            raise Refused(400, f"no decoder {decoder!r}", "decoder") from error

    async def _start(
        self, chat: list[Message], default: DecodeConfig, changes: dict[str, Any]
    ) -> Run:
        """Checks everything, then queues the run."""
        most = self._options.max_tokens
        default = replace(default, max_new_tokens=min(default.max_new_tokens, most))
        config = configured(default, changes, most)
        self._check_blocks(config, default)
        # In a thread of its own: a long prompt takes a while to tokenize.
        ids = await anyio.to_thread.run_sync(self._encode, chat)
        room = self._model.config.max_length - len(ids)
        if "max_new_tokens" not in changes and 0 < room < config.max_new_tokens:
            config = replace(config, max_new_tokens=room)
        try:
            source = stream(self._model, ids, config)
        except ValueError as error:
            raise Refused(400, str(error), "messages") from error
        header = trace_header(self._model, ids, config)
        try:
            return Run(header, self.worker.start(self._prepared(ids, config, source)))
        except Busy as error:
            message = f"{self._options.queue} runs are waiting already; try again later"
            raise Refused(503, message, code="overloaded") from error

    def _check_blocks(self, config: DecodeConfig, default: DecodeConfig) -> None:
        """Blocks decide how wide a step is, and what a compiled model holds: no client's choice."""
        if isinstance(config, ARConfig):
            return
        most = max(self._options.max_tokens, default.block_size or 0)
        if config.block_size is not None and config.block_size > most:
            message = f"block_size must be at most {most}, got {config.block_size}"
            raise Refused(400, message, "block_size")
        if self._model.fixed is None or not isinstance(config, D2FConfig):
            return
        for name in ("block_size", "max_active_blocks"):
            own, asked = getattr(default, name), getattr(config, name)
            if asked != own:
                message = f"{name} must be {own}, for which this service is compiled, got {asked}"
                raise Refused(400, message, name)

    def _prepared(
        self, ids: list[int], config: DecodeConfig, source: Iterator[StepEvent]
    ) -> Generator[StepEvent, None, None]:
        """The run, its programs compiled on the device's thread before its clock starts."""
        prepare(self._model, len(ids), config)
        yield from source

    def _encode(self, chat: list[Message]) -> list[int]:
        try:
            return self._model.tokenizer.encode_chat(chat)
        except ValueError as error:
            raise Refused(400, str(error), "messages") from error

    async def _finished(self, run: Run, request: Request) -> Trace:
        """The whole run; cancelled when the client is gone."""
        watch = asyncio.create_task(_cancel_when_gone(request, run.job))
        try:
            told = [event async for event in run.job.events(HEARTBEAT)]
        except Exception as error:
            LOG.exception("a run failed")
            raise Refused(500, FAILED) from error
        finally:
            watch.cancel()
            run.job.cancel()
        trace = self._trace(run, [event for event in told if event])
        if trace.finish_reason is None:
            raise Refused(503, STOPPED)
        return trace

    def _trace(self, run: Run, events: list[StepEvent]) -> Trace:
        trace = Trace(run.header, tuple(events))
        return trace.with_text(self._model.tokenizer.decode(trace.token_ids))

    async def _chunks(self, run: Run, answer: Answer, counted: bool) -> AsyncIterator[bytes]:
        readable = ReadableText(self._model.tokenizer, len(run.header.prompt_ids))
        events: list[StepEvent] = []
        yield answer.chunk({"role": "assistant", "content": ""})
        try:
            async for event in run.job.events(HEARTBEAT):
                if event is None:
                    yield WAITING
                    continue
                events.append(event)
                if text := readable.add(event):
                    yield answer.chunk({"content": text})
        except Exception:
            LOG.exception("a run failed")
            yield _failed(FAILED)
            return
        trace = self._trace(run, events)
        if trace.finish_reason is None:
            yield _failed(STOPPED)
            return
        if text := readable.rest(trace.text):
            yield answer.chunk({"content": text})
        yield answer.chunk({}, trace.finish_reason)
        if counted:
            yield answer.counts(trace)
        yield DONE

    async def _steps(self, run: Run) -> AsyncIterator[bytes]:
        events: list[StepEvent] = []
        told: set[int] = set()
        yield sse(Trace(run.header, ()).to_json(), "header")
        try:
            async for event in run.job.events(HEARTBEAT):
                if event is None:
                    yield WAITING
                    continue
                events.append(event)
                new = {commit.token_id for commit in event.commits} - told
                told |= new
                texts = [[i, self._model.tokenizer.token_text(i)] for i in sorted(new)]
                yield sse(json.dumps({"event": event_to_dict(event), "texts": texts}), "step")
        except Exception:
            LOG.exception("a run failed")
            yield _failed(FAILED, "error")
            return
        trace = self._trace(run, events)
        if trace.finish_reason is None:
            yield _failed(STOPPED, "error")
            return
        yield sse(json.dumps({"text": trace.text}), "end")


def _default(model: Model) -> DecodeConfig:
    name, pairs = Path(model.name).name, PAIRS | PUBLISHED_PAIRS
    decoder = catalogue_decoder(name, pairs) or ("ar" if model.config.causal else "d2f")
    return default_config(name, decoder, pairs)


def _failed(message: str, event: str | None = None) -> bytes:
    return sse(json.dumps(Refused(500, message).to_dict()), event)


async def _body(request: Request) -> bytes:
    """The request's body, refused as soon as it is too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Refused(413, f"the request is longer than {MAX_BODY:,} bytes")
    return bytes(body)


async def _cancel_when_gone(request: Request, job: Job) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancel()


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return JSONResponse(error.to_dict(), error.status, headers)


async def _refuse_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(refused.to_dict(), error.status_code, error.headers)


async def _refuse_all(request: Request, error: Exception) -> Response:
    return JSONResponse(Refused(500, FAILED).to_dict(), 500)
