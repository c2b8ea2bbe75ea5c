"""One model behind HTTP: OpenAI's completions, and the run itself as a stream of events.

- ``GET /v1/models``, ``GET /v1/models/NAME``, ``GET /health``
- ``POST /v1/chat/completions``: whole or streamed. A diffusion model's text is sent as far as it
  is readable: up to the first position still masked.
- ``POST /v1/completions``: the same of a prompt without a template.
- ``POST /v1/events``: server-sent events ``header`` (a Trace without events), ``step`` (the event,
  ``texts`` of tokens not seen before, and ``placed``: texts by position where a token reads
  otherwise than by itself), ``end`` (the readable answer) or ``error``.

Requests are decoded one after the other. A client that closes its connection stops its run within
one step. Knows no decoding rule and no command line.
"""

import hmac
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS, default_config, made_for
from d2f.config import D2FConfig, DecodeConfig
from d2f.decode import generate, prepare, stream, trace_header
from d2f.detokenizer import TokenTexts
from d2f.errors import InvalidInput
from d2f.events import StepEvent, Trace, TraceHeader, event_to_dict
from d2f.infill import infill
from d2f.model import Model
from d2f.run_options import RunOptions
from d2f.serve.answers import Answer, ChatAnswer, TextAnswer, sse
from d2f.serve.protocol import (
    ChatRequest,
    CompletionRequest,
    EventsRequest,
    configured,
    parse,
)
from d2f.serve.refused import Refused, about, answer_errors, errors_told
from d2f.serve.responses import HEARTBEAT, STOPPED, WAITING, RunStream, body, chunks, whole
from d2f.serve.worker import Busy, Job, Worker
from d2f.shape import Diffusion
from d2f.stops import spoken
from d2f.strict_json import to_json
from d2f.tokenizer import Tokenizer
from d2f.tuning import Tuner, load_tuned

WARM_UP_TOKENS = 32
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What is served and within which limits; ``queue`` runs wait behind the one that runs.

    ``key``, if any, is what clients must send as their bearer token. ``mask_id`` and what follows
    are the fields of :class:`d2f.shape.Diffusion`, for a model whose files do not say them.
    """

    model: str
    adapter: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "auto"
    quantize: str | None = None
    compile: bool = False
    fuse: bool = False
    packing: str | None = None
    threads: int | None = None
    tuner: Tuner = Tuner()
    mask_id: int | None = None
    logit_shift: bool | None = None
    grid: str | None = None
    block_size: int | None = None
    queue: int = 16
    max_tokens: int = 2048
    key: str = ""

    def __post_init__(self) -> None:
        for name, least in (("queue", 0), ("max_tokens", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InvalidInput(f"{name} must be an integer >= {least}, got {value!r}")
        if not (self.key.isascii() and self.key.isprintable()):
            raise InvalidInput("the API key holds characters that no HTTP header can hold")


@dataclass(frozen=True)
class Run:
    """A run that may begin: its header and its events."""

    header: TraceHeader
    events: Generator[StepEvent, None, None]


@dataclass(frozen=True)
class Given:
    """What of an answer is given beforehand, and whether its run is to be inspected."""

    hold: dict[int, int] = field(default_factory=dict)
    infill: str | None = None
    inspect: bool = False


def load_app(options: Options) -> FastAPI:
    """The service with its model loaded and warm. A model that does not load raises."""
    how = {each.name: getattr(options, each.name) for each in fields(RunOptions)}
    given = Diffusion(**{each.name: getattr(options, each.name) for each in fields(Diffusion)})
    model = load_tuned(
        options.model,
        RunOptions(**how),
        options.tuner,
        adapter=options.adapter,
        diffusion=given,
    )
    config = _default(model)
    warm = min(WARM_UP_TOKENS, options.max_tokens)
    # A prompt of no template: a base model has none, and completes prompts all the same.
    hello = model.tokenizer.encode_raw("Hello")
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
    allowed = [Depends(errors_told), Depends(service.check_key)]
    app.add_api_route("/health", service.health)
    app.add_api_route("/v1/models", service.models, dependencies=allowed)
    app.add_api_route("/v1/models/{name:path}", service.model, dependencies=allowed)
    for path, endpoint in (
        ("/v1/chat/completions", service.chat),
        ("/v1/completions", service.completions),
        ("/v1/events", service.events),
    ):
        app.add_api_route(
            path, endpoint, methods=["POST"], dependencies=allowed, response_model=None
        )
    answer_errors(app)
    return app


class Service:
    """The endpoints."""

    def __init__(self, model: Model, config: DecodeConfig, options: Options) -> None:
        self.worker = Worker(options.queue)
        self._model, self._config, self._options = model, config, options
        self._started = int(time.time())

    async def check_key(self, request: Request) -> None:
        """Refuses a client without the key, where there is one."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = self._options.key
        if key and not hmac.compare_digest(sent.encode(), key.encode()):
            raise Refused(401, "the API key is missing or wrong", code="invalid_api_key")

    async def health(self) -> dict[str, str]:
        """Answers as long as the service does."""
        return {"status": "ok"}

    async def models(self) -> dict[str, Any]:
        """OpenAI's list of models: the one that is served."""
        return {"object": "list", "data": [await self.model(self._model.name)]}

    async def model(self, name: str) -> dict[str, Any]:
        """OpenAI's description of the model."""
        self._check_model(name)
        about_it = {"id": name, "object": "model", "created": self._started, "owned_by": "d2f"}
        return about_it | {"max_model_len": self._model.config.max_length}

    async def chat(self, request: Request) -> Response:
        """OpenAI's chat completions."""
        asked: ChatRequest = parse(ChatRequest, await body(request))
        encode = partial(self._model.tokenizer.encode_chat, asked.chat())
        return await self._answered(asked, encode, ChatAnswer, request)

    async def completions(self, request: Request) -> Response:
        """OpenAI's completions of a prompt, which no template changes."""
        asked: CompletionRequest = parse(CompletionRequest, await body(request))
        encode = partial(self._encode_prompt, asked.prompt)
        return await self._answered(asked, encode, TextAnswer, request)

    async def events(self, request: Request) -> Response:
        """The run itself, step by step."""
        asked: EventsRequest = parse(EventsRequest, await body(request))
        encode = partial(self._model.tokenizer.encode_chat, asked.chat())
        given = Given(dict(asked.hold), asked.infill, asked.inspect)
        default = self._decoder(asked.decoder)
        run = await self._ready(encode, default, asked.config, "messages", given)
        job = self._queued(run.events)
        return RunStream(self._steps(run.header, job), job, "error")

    async def _answered(
        self,
        asked: ChatRequest | CompletionRequest,
        encode: Callable[[], list[int]],
        kind: type[Answer],
        request: Request,
    ) -> Response:
        self._check_model(asked.model)
        if asked.stream_options and not asked.stream:
            raise Refused(400, "stream_options needs stream", "stream_options")
        given = Given(infill=asked.infill)
        run = await self._ready(encode, self._config, asked.changes(), asked.source, given)
        job = self._queued(spoken(run.events, run.header, self._model.tokenizer, asked.stop))
        answer = kind(self._model.name, len(run.header.prompt_ids))
        if asked.stream:
            counted = asked.stream_options is not None and asked.stream_options.include_usage
            return RunStream(chunks(job, answer, counted), job, None)
        return JSONResponse(await whole(job, answer, request))

    def _check_model(self, name: str) -> None:
        if name != self._model.name:
            message = f"the model {name!r} is not served here; {self._model.name!r} is"
            raise Refused(404, message, "model", "model_not_found")

    def _encode_prompt(self, prompt: str | list[int]) -> list[int]:
        return self._model.tokenizer.encode_raw(prompt) if isinstance(prompt, str) else prompt

    def _decoder(self, decoder: str | None) -> DecodeConfig:
        if decoder is None:
            return self._config
        try:
            pairs = PAIRS | PUBLISHED_PAIRS
            return default_config(self._model.name, decoder, pairs, self._model.config)
        except KeyError as error:
            raise Refused(400, f"no decoder {decoder!r}", "decoder") from error

    async def _ready(
        self,
        encode: Callable[[], list[int]],
        default: DecodeConfig,
        changes: dict[str, Any],
        source: str,
        given: Given,
    ) -> Run:
        """Checks everything; ``source`` is the field that the prompt comes from."""
        most = self._options.max_tokens
        hold = given.hold
        if given.infill is not None:
            with about("infill"):
                hold, changes = self._filled(given, changes)
        default = replace(default, max_new_tokens=min(default.max_new_tokens, most))
        config = configured(default, changes, most)
        self._check_blocks(config, default)
        with about(source):
            # In a thread of its own: a long prompt takes a while to tokenize.
            ids = await anyio.to_thread.run_sync(encode)
            room = self._model.config.max_length - len(ids)
            if "max_new_tokens" not in changes and 0 < room < config.max_new_tokens:
                config = replace(config, max_new_tokens=room)
        with about("hold" if given.infill is None else "infill"):
            header = trace_header(self._model, ids, config, hold)
        with about(source):
            events = stream(self._model, ids, config, hold=hold, inspect=given.inspect)
        return Run(header, self._prepared(ids, config, events))

    def _filled(
        self, given: Given, changes: dict[str, Any]
    ) -> tuple[dict[int, int], dict[str, Any]]:
        """Held tokens, and settings with the answer's length, of a text with gaps."""
        assert given.infill is not None
        if given.hold or "max_new_tokens" in changes:
            other = "hold" if given.hold else "a limit of tokens"
            raise InvalidInput(f"infill says the whole answer; leave {other} out")
        hold, length = infill(self._model.tokenizer, given.infill)
        return hold, changes | {"max_new_tokens": length}

    def _queued(self, source: Generator[T, None, None]) -> Job[T]:
        try:
            return self.worker.start(source)
        except Busy as error:
            message = f"{self._options.queue} runs are waiting already; try again later"
            raise Refused(503, message, code="overloaded") from error

    def _check_blocks(self, config: DecodeConfig, default: DecodeConfig) -> None:
        """Blocks decide how wide a step is, and may take other programs: no client's choice."""
        size = getattr(config, "block_size", None) or 0
        most = max(self._options.max_tokens, getattr(default, "block_size", None) or 0)
        if size > most:
            raise Refused(400, f"block_size must be at most {most}, got {size}", "block_size")
        fixed = self._model.fixed
        if fixed is None or not fixed.bound or not isinstance(config, D2FConfig):
            return
        for name in ("block_size", "max_active_blocks"):
            own, asked = getattr(default, name), getattr(config, name)
            if asked != own:
                message = f"{name} must be {own}, for which this service is compiled, got {asked}"
                raise Refused(400, message, name)

    def _prepared(
        self, ids: list[int], config: DecodeConfig, source: Iterator[StepEvent]
    ) -> Generator[StepEvent, None, None]:
        """The run, its programs made on the device's thread before its clock starts."""
        prepare(self._model, len(ids), config)
        yield from source

    async def _steps(self, header: TraceHeader, job: Job[StepEvent]) -> AsyncIterator[bytes]:
        events: list[StepEvent] = []
        told: set[int] = set()
        tokenizer = self._model.tokenizer
        places = TokenTexts(tokenizer, len(header.prompt_ids))
        yield sse(Trace(header, ()).to_json(), "header")
        async for event in job.events(HEARTBEAT):
            if event is None:
                yield WAITING
                continue
            events.append(event)
            new = _ids(event) - told
            told |= new
            step: dict[str, Any] = {
                "event": event_to_dict(event),
                "texts": [[i, tokenizer.token_text(i)] for i in sorted(new)],
            }
            if placed := _placed(event, places.add(event), tokenizer):
                step["placed"] = placed
            yield sse(to_json(step), "step")
        trace = Trace(header, tuple(events))
        if trace.finish_reason is None:
            raise Refused(503, STOPPED)
        yield sse(to_json({"text": self._model.tokenizer.decode(trace.token_ids)}), "end")


def _ids(event: StepEvent) -> set[int]:
    """Every token that an event tells of."""
    decided = {each.token_id for each in event.commits}
    likely = {token_id for each in event.commits for token_id, _ in each.candidates}
    return decided | likely | {each.token_id for each in event.guesses}


def _placed(event: StepEvent, texts: dict[int, str], tokenizer: Tokenizer) -> list[list[Any]]:
    """Those texts, by position, that are not the committed tokens' own."""
    own = {each.position: tokenizer.token_text(each.token_id) for each in event.commits}
    return [[position, text] for position, text in texts.items() if own.get(position) != text]


def _default(model: Model) -> DecodeConfig:
    name, pairs = Path(model.name).name, PAIRS | PUBLISHED_PAIRS
    return default_config(name, made_for(name, pairs), pairs, model.config)
