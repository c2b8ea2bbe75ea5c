"""A lane of the race: a name and an iterator of events, from a live decoder or a recorded Trace.

The page cannot tell the two apart. Knows nothing of clocks, threads or screens.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from safetensors import SafetensorError

from app.conversation import Conversation
from d2f import D2FConfig, Model, Trace, TraceHeader, load_model, stream
from d2f.config import CONFIGS, DecodeConfig
from d2f.decode import trace_header
from d2f.events import StepEvent
from d2f.registry import Pair
from d2f.tokenizer import Message

WARM_UP_TOKENS = 32


@dataclass
class Lane:
    """Steps through one run and remembers it; ``decode`` and ``token_text`` turn ids into text.

    ``chat`` is what the model was told: earlier turns, then the prompt.
    """

    name: str
    header: TraceHeader
    source: Iterator[StepEvent]
    token_text: Callable[[int], str]
    decode: Callable[[Sequence[int]], str]
    chat: Sequence[Message] = ()
    events: list[StepEvent] = field(default_factory=list)
    seconds: float = 0.0

    def advance(self) -> StepEvent | None:
        """The next event, or None when the run is over."""
        event = next(self.source, None)
        if event is not None:
            self.events.append(event)
            self.seconds += event.seconds
        return event

    def close(self) -> None:
        """Cancels a live run and frees what its decoder holds."""
        assert isinstance(self.source, Generator)
        self.source.close()

    @property
    def trace(self) -> Trace:
        """The run so far, with its readable answer."""
        trace = Trace(self.header, tuple(self.events))
        return trace.with_text(self.decode(trace.token_ids))


@dataclass(frozen=True)
class Question:
    """What both lanes are asked, after what was said before.

    ``drop_oldest`` lets the oldest turns go where the chat is too long for the models' context.
    """

    pair: Pair
    prompt: str
    config: D2FConfig
    conversation: Conversation
    drop_oldest: bool = False


def live_lane(name: str, model: Model, chat: Sequence[Message], config: DecodeConfig) -> Lane:
    """A lane that decodes as it is advanced. A chat that does not fit raises ``ValueError``."""
    tokenizer = model.tokenizer
    prompt_ids = tokenizer.encode_chat(chat)
    return Lane(
        name=name,
        header=trace_header(model, prompt_ids, config),
        source=stream(model, prompt_ids, config),
        token_text=tokenizer.token_text,
        decode=tokenizer.decode,
        chat=chat,
    )


def recorded_lane(name: str, trace: Trace, token_text: Callable[[int], str]) -> Lane:
    """A lane that repeats a finished run with its own times."""
    return Lane(
        name=name,
        header=trace.header,
        source=(event for event in trace.events),
        token_text=token_text,
        decode=lambda ids: trace.text,
    )


@lru_cache(maxsize=3)
def warm_model(name: str, decoder: str, device: str, dtype: str) -> Model:
    """A loaded model after a short run, so that first-use costs fall into no race.

    The cache holds one pair and its teacher. Whatever keeps a checkpoint from loading raises
    ``ValueError``.
    """
    try:
        model = load_model(name, device=device, dtype=dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"The model {name!r} does not load: {error}") from error
    config = CONFIGS[decoder](max_new_tokens=WARM_UP_TOKENS)
    hello = [{"role": "user", "content": "Hello"}]
    for _ in live_lane(decoder, model, hello, config).source:
        pass
    return model


def pair_lanes(question: Question, device: str, dtype: str) -> list[Lane]:
    """The two lanes of a race: same prompt, same sampling, each with its own decoder and past."""
    lanes = replace(question.pair, config=question.config).lanes
    settings = [(decoder, *lanes[decoder]) for decoder in ("d2f", "ar")]
    models = [warm_model(name, decoder, device, dtype) for decoder, name, _ in settings]
    conversation = _fitting(question, models) if question.drop_oldest else question.conversation
    return [
        live_lane(decoder.upper(), model, conversation.messages(i, question.prompt), config)
        for i, (model, (decoder, _, config)) in enumerate(zip(models, settings, strict=True))
    ]


def _fitting(question: Question, models: Sequence[Model]) -> Conversation:
    """The conversation without as many of its oldest turns as the models' contexts demand."""
    conversation = question.conversation
    while conversation.turns and not all(
        len(model.tokenizer.encode_chat(conversation.messages(i, question.prompt)))
        + question.config.max_new_tokens
        <= model.config.max_length
        for i, model in enumerate(models)
    ):
        conversation = conversation.latest(len(conversation.turns) - 1)
    return conversation
