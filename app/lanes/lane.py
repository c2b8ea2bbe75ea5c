"""A lane of the race: a name and an iterator of events, live, recorded or from another machine.

The page cannot tell them apart. Knows nothing of clocks, threads or screens.
"""

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from reprlib import repr as brief

import torch

from d2f import D2FConfig, Model, Trace, TraceHeader, stream
from d2f.catalogue.pairs import PAIRS, Pair, default_config
from d2f.catalogue.published import PUBLISHED
from d2f.config import ARConfig, DecodeConfig, decoder_name
from d2f.decode import preparing, trace_header
from d2f.detokenizer import TokenTexts
from d2f.errors import D2FError, InvalidInput, TooLittleMemory
from d2f.events import StepEvent
from d2f.run_options import RunOptions
from d2f.tokenizer import Message
from d2f.tuning import Tuner, load_tuned, usual_dtype

from ..characters import whole
from ..conversation import Conversation, spoken
from .folders import found_model
from .remote import ChatReader, EventsReader, Feed, RemoteError, Server, reader_of
from .rivals import lane_name
from .runners import RivalPair, Runner, Transformers
from .transformers import Reference, generate_steps, warm_reference

WARM_UP_TOKENS = 32
WARM_UP_BLOCKS = 4  # so that windows of several blocks have run as well
BEGIN = 10.0  # seconds that a server of events has to accept a run
Decoding = Model | Reference | Server
Texts = Callable[[StepEvent], Mapping[int, str]]  # of a step, by position


def as_it_came(trace: Trace) -> Trace:
    """Of a run whose tokens are those of its steps."""
    return trace


def said(trace: Trace) -> str:
    """What a run says, by its text."""
    return spoken(trace.text)


def own_texts(token_text: Callable[[int], str], placed: Mapping[int, str] | None = None) -> Texts:
    """Tokens' own texts, but for positions that are ``placed`` with another."""
    other = placed or {}
    return lambda event: {
        commit.position: other.get(commit.position, token_text(commit.token_id))
        for commit in event.commits
    }


@dataclass
class Lane:
    """Steps through one run and remembers it; ``decode`` and ``token_text`` turn ids into text.

    ``placed`` begins a reading of the tokens in their places; without it each is its own text.
    ``ahead`` makes what the steps need; ``made`` tells meanwhile how much of it, and of how much.
    ``chat`` is what the model was told: earlier turns, then the prompt. ``counted`` makes of the
    steps as they came the run that is kept, and ``spoken`` takes from it what the model thought
    aloud. ``feed`` is there where the run is on another machine; ``failure`` says why such a run
    broke off, if it did.
    """

    name: str
    header: TraceHeader
    source: Iterator[StepEvent]
    token_text: Callable[[int], str]
    decode: Callable[[Sequence[int]], str]
    chat: Sequence[Message] = ()
    placed: Callable[[], Texts] | None = None
    counted: Callable[[Trace], Trace] = as_it_came
    spoken: Callable[[Trace], str] = said
    events: list[StepEvent] = field(default_factory=list)
    seconds: float = 0.0
    feed: Feed | None = None
    failure: str = ""
    ahead: Iterable[tuple[int, int]] = ()
    made: tuple[int, int] | None = None

    def get_ready(self, stopped: "Stopped") -> None:
        """Make what the steps need, ahead of the clock, unless told to stop."""
        for made in self.ahead:
            self.made = made
            if stopped():
                return
        self.made = None

    def texts(self) -> Texts:
        """A reader of the run's events, in order, to what tokens say by position."""
        return own_texts(self.token_text) if self.placed is None else self.placed()

    @property
    def clock(self) -> float:
        """Seconds used so far; of a run elsewhere with nothing to tell yet, those gone by."""
        if self.feed is None or self.feed.ready():
            return self.seconds
        return max(self.seconds, self.feed.elapsed)

    def ready(self, patience: float) -> bool:
        """Whether ``advance`` would not wait for another machine, after so many seconds."""
        return self.feed is None or self.feed.ready(patience)

    def advance(self) -> StepEvent | None:
        """The next event, or None when the run is over."""
        try:
            event = next(self.source, None)
        except RemoteError as error:
            self.failure = str(error)
            return None
        if event is not None:
            self.take(event)
        return event

    def take(self, event: StepEvent) -> None:
        """Remembers a step."""
        self.events.append(event)
        self.seconds += event.seconds

    def close(self) -> None:
        """Cancels a live run and frees what its decoder holds."""
        assert isinstance(self.source, Generator)
        self.source.close()
        if self.feed is not None:
            self.feed.close()

    @property
    def finished(self) -> bool:
        """Whether the run came to its own end."""
        return bool(self.events) and self.events[-1].finish_reason is not None

    @property
    def trace(self) -> Trace:
        """The run so far, with its readable answer."""
        trace = Trace(self.header, tuple(self.events))
        return self.counted(trace.with_text(whole(self.decode(trace.token_ids))))

    @property
    def answer(self) -> str:
        """What the model says, without what it thought aloud before."""
        return self.spoken(self.trace)


@dataclass(frozen=True)
class Host:
    """Where and how models run, and a folder whose models go before others.

    ``tuner`` chooses what the engine's options leave open. ``pairs`` are those that can race here,
    by name; ``refused`` says of others why they cannot.
    ``elsewhere`` opens the lanes where the models are not in this process: the GPU is lent for one
    call at a time, or they have a process of their own.
    """

    engine: RunOptions = RunOptions()
    models_dir: Path | None = None
    pairs: Mapping[str, Pair] = field(default_factory=lambda: PAIRS, compare=False)
    refused: Mapping[str, str] = field(default_factory=dict, compare=False)
    tuner: Tuner = Tuner()
    elsewhere: "Callable[[Asked, Host, Stopped], Opened] | None" = field(
        default=None, compare=False
    )

    def pair(self, name: str) -> Pair:
        """The pair of a name; ``ValueError`` if it does not race here."""
        if not isinstance(name, str) or name not in self.pairs:
            raise InvalidInput(f"model pair must be one of {sorted(self.pairs)}, got {brief(name)}")
        return self.pairs[name]


@dataclass(frozen=True)
class Question:
    """What both lanes are asked, after what was said before.

    Where the chat is too long for the models' context, its oldest turns go.
    """

    pair: Pair
    prompt: str
    config: D2FConfig
    conversation: Conversation

    @property
    def models(self) -> list[str]:
        """The model of each lane."""
        return [self.pair.lanes[decoder][0] for decoder in self.pair.racing]


@dataclass(frozen=True)
class Solo:
    """What a single model of the catalogue is asked."""

    model: str
    prompt: str
    config: DecodeConfig

    @property
    def models(self) -> list[str]:
        """The model of its one lane."""
        return [self.model]


Asked = Question | Solo
Moved = tuple[int, StepEvent]  # which lane made the step
Stopped = Callable[[], bool]  # whether a run is to end; asked again and again
Opened = tuple[Sequence[Lane], Iterator[Moved]]  # lanes, and their moves in the order of a race


def live_lane(name: str, model: Model, chat: Sequence[Message], config: DecodeConfig) -> Lane:
    """A lane that decodes as it is advanced. A chat that does not fit raises ``ValueError``."""
    tokenizer = model.tokenizer
    prompt_ids = tokenizer.encode_chat(chat)
    source = stream(model, prompt_ids, config)  # refuses what does not fit
    ahead = preparing(model, len(prompt_ids), config)
    if model.fixed is not None and model.fixed.fused:
        # Minutes, which count as loading; graphs take seconds, which are the run's.
        deque(ahead, maxlen=0)
    return Lane(
        name=name,
        header=trace_header(model, prompt_ids, config),
        source=source,
        token_text=tokenizer.token_text,
        decode=tokenizer.decode,
        chat=chat,
        placed=lambda: TokenTexts(tokenizer, len(prompt_ids)).add,
        ahead=ahead,
    )


def recorded_lane(
    name: str,
    trace: Trace,
    token_text: Callable[[int], str],
    placed: Mapping[int, str] | None = None,
) -> Lane:
    """A lane that repeats a finished run with its own times; see :func:`own_texts`."""
    return Lane(
        name=name,
        header=trace.header,
        source=(event for event in trace.events),
        token_text=token_text,
        decode=lambda ids: trace.text,
        placed=lambda: own_texts(token_text, placed),
    )


def reference_lane(
    name: str, reference: Reference, chat: Sequence[Message], config: ARConfig
) -> Lane:
    """A lane that transformers' own ``generate`` decodes as it is advanced."""
    tokenizer = reference.tokenizer
    prompt_ids = tokenizer.encode_chat(chat)
    return Lane(
        name=name,
        header=reference.header(prompt_ids, config),
        source=generate_steps(reference, prompt_ids, config),
        token_text=tokenizer.token_text,
        decode=tokenizer.decode,
        chat=chat,
        placed=lambda: TokenTexts(tokenizer, len(prompt_ids)).add,
    )


def remote_lane(name: str, server: Server, chat: Sequence[Message], config: DecodeConfig) -> Lane:
    """A lane on another machine, whose request goes out at once; it must be closed.

    It never raises: a server that does not do its part gives a lane that ends with a ``failure``.
    """
    reader = reader_of(server, chat, config)
    feed = Feed(server, reader)
    if isinstance(reader, EventsReader) and not reader.accepted(feed, BEGIN):
        text = f"The server at {server.host} did not begin in {BEGIN:g} seconds."
        feed.refuse(RemoteError(text))
    lane = Lane(
        name=name,
        header=reader.header,
        source=feed.events(),
        token_text=reader.texts.__getitem__,
        decode=reader.answer,
        chat=chat,
        feed=feed,
    )
    if isinstance(reader, ChatReader):
        return replace(lane, counted=reader.counted, spoken=reader.spoken)
    return replace(lane, placed=lambda: reader.placed_texts)


@lru_cache(maxsize=16)
def loaded_model(name: str, host: Host) -> Model:
    """A model in memory, where it stays until another one needs the room.

    Whatever keeps a checkpoint from loading raises ``ValueError``.
    """
    # A folder in the place of a catalogue's model is decoded as that model is.
    known = PUBLISHED[name].diffusion if name in PUBLISHED else None
    place = found_model(name, host.models_dir)
    load = partial(load_tuned, place, host.engine, host.tuner, diffusion=known)
    try:
        try:
            return load()
        except TooLittleMemory:
            forget_models()
            return load()
    except D2FError as error:
        raise InvalidInput(f"The model {name!r} does not load: {error}") from error


def forget_models() -> None:
    """Frees the models that no run is using."""
    for cache in (loaded_model, warm_model, warm_reference):
        cache.cache_clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@lru_cache(maxsize=16)
def warm_model(name: str, decoder: str, host: Host) -> Model:
    """A loaded model after a short run, so that first-use costs fall into no race."""
    model, config = loaded_model(name, host), default_config(name, decoder, host.pairs)
    blocks = WARM_UP_BLOCKS * config.block_size if isinstance(config, D2FConfig) else 0
    tokens = min(max(WARM_UP_TOKENS, blocks), config.max_new_tokens)
    config = replace(config, max_new_tokens=tokens)
    hello = [{"role": "user", "content": "Hello"}]
    lane = live_lane(decoder, model, hello, config)
    lane.get_ready(lambda: False)
    deque(lane.source, maxlen=0)
    return model


def solo_lanes(asked: Solo, host: Host) -> list[Lane]:
    """The one lane of a model that answers alone."""
    model = warm_model(asked.model, decoder_name(asked.config), host)
    chat = [{"role": "user", "content": asked.prompt}]
    return [live_lane(asked.model, model, chat, asked.config)]


def pair_lanes(question: Question, host: Host) -> list[Lane]:
    """The two lanes of a race: same prompt, same sampling, each with its own decoder and past."""
    pair = replace(question.pair, config=question.config)
    runners = pair.runners if isinstance(pair, RivalPair) else {}
    models = [
        _decoding(name, decoder, runners.get(decoder), host)
        for name, decoder in zip(question.models, pair.racing, strict=True)
    ]
    conversation = _fitting(question, models)
    lanes: dict[int, Lane] = {}
    # Those of another machine last: their requests go out when nothing here can fail any more.
    for i in sorted(range(len(models)), key=lambda i: isinstance(models[i], Server)):
        decoder = pair.racing[i]
        chat, config = conversation.messages(i, question.prompt), pair.raced(decoder)
        lanes[i] = _lane(lane_name(pair, decoder), models[i], chat, config)
    return [lanes[i] for i in range(len(models))]


def _decoding(name: str, decoder: str, runner: Runner | None, host: Host) -> Decoding:
    """The model that decodes a lane here, or the server that does elsewhere."""
    if isinstance(runner, Server):
        return runner
    if isinstance(runner, Transformers):
        device, dtype = host.engine.device, host.engine.dtype
        dtype = usual_dtype(name, device) if dtype == "auto" else dtype
        return warm_reference(found_model(name, host.models_dir), device, dtype)
    return warm_model(name, decoder, host)


def _lane(name: str, decoded_by: Decoding, chat: Sequence[Message], config: DecodeConfig) -> Lane:
    if isinstance(decoded_by, Server):
        return remote_lane(name, decoded_by, chat, config)
    if isinstance(decoded_by, Reference):
        assert isinstance(config, ARConfig)  # all that generate does here
        return reference_lane(name, decoded_by, chat, config)
    return live_lane(name, decoded_by, chat, config)


def _fitting(question: Question, models: Sequence[Decoding]) -> Conversation:
    """The conversation without as many of its oldest turns as the models' contexts demand.

    What a model on another machine can hold is not known here.
    """
    conversation = question.conversation
    while conversation.turns and not all(
        len(model.tokenizer.encode_chat(conversation.messages(i, question.prompt)))
        + question.config.max_new_tokens
        <= (model.max_length if isinstance(model, Reference) else model.config.max_length)
        for i, model in enumerate(models)
        if not isinstance(model, Server)
    ):
        conversation = conversation.latest(len(conversation.turns) - 1)
    return conversation
