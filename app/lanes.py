"""A lane of the race: a name and an iterator of events, from a live decoder or a recorded Trace.

The page cannot tell the two apart. Knows nothing of clocks, threads or screens.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from safetensors import SafetensorError

from d2f import D2FConfig, Model, Trace, TraceHeader, load_model, stream
from d2f.config import CONFIGS, DecodeConfig
from d2f.decode import trace_header
from d2f.events import StepEvent
from d2f.registry import Pair

WARM_UP_TOKENS = 32


@dataclass
class Lane:
    """Steps through one run and remembers it; ``decode`` and ``token_text`` turn ids into text."""

    name: str
    header: TraceHeader
    source: Iterator[StepEvent]
    token_text: Callable[[int], str]
    decode: Callable[[Sequence[int]], str]
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


def live_lane(name: str, model: Model, prompt: str, config: DecodeConfig) -> Lane:
    """A lane that decodes as it is advanced. A prompt that does not fit raises ``ValueError``."""
    tokenizer = model.tokenizer
    prompt_ids = tokenizer.encode_chat([{"role": "user", "content": prompt}])
    return Lane(
        name=name,
        header=trace_header(model, prompt_ids, config),
        source=stream(model, prompt_ids, config),
        token_text=tokenizer.token_text,
        decode=tokenizer.decode,
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


@lru_cache(maxsize=2)
def warm_model(name: str, decoder: str, device: str, dtype: str) -> Model:
    """A loaded model after a short run, so that first-use costs fall into no race.

    The cache holds one pair. Whatever keeps a checkpoint from loading raises ``ValueError``.
    """
    try:
        model = load_model(name, device=device, dtype=dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"The model {name!r} does not load: {error}") from error
    config = CONFIGS[decoder](max_new_tokens=WARM_UP_TOKENS)
    for _ in live_lane(decoder, model, "Hello", config).source:
        pass
    return model


def pair_lanes(pair: Pair, prompt: str, config: D2FConfig, device: str, dtype: str) -> list[Lane]:
    """The two lanes of a race: same prompt, same sampling, each with its own decoder."""
    lanes = []
    for decoder in ("d2f", "ar"):
        name, settings = replace(pair, config=config).lanes[decoder]
        model = warm_model(name, decoder, device, dtype)
        lanes.append(live_lane(decoder.upper(), model, prompt, settings))
    return lanes
