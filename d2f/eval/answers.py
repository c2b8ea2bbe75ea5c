"""One prompt answered by one decoder: its text, and all that is told of the run."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from d2f.bench.suite import WARM_UP_FORWARDS, fitted
from d2f.config import D2FConfig, DecodeConfig
from d2f.decode import prepare, stream, trace_header
from d2f.errors import InvalidInput
from d2f.eval.loops import repeated
from d2f.events import StepEvent, Trace
from d2f.model import Model
from d2f.stops import UpToStop, spoken
from d2f.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """One request of a task: a prompt, and the texts that end its answer.

    ``repeat`` numbers equal requests of a task that samples several answers to a problem.
    """

    task: str
    problem: int
    repeat: int
    prompt: str
    stops: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        cut: tokens of the prompt's beginning that the context had no room for.
        tokens: those that count as the answer's, see :data:`COUNTS`.
        looping: whether it ends in a loop.
        repeated: tokens that a loop only repeats; they are no speed. A released script's count
            takes them in, so there it is 0.
        seconds, ttft, forwards, finish_reason: as a Trace has them; ``"stop"`` is a stop sequence
            as well.
    """

    task: str
    problem: int
    repeat: int
    text: str
    prompt_tokens: int
    cut: int
    tokens: int
    looping: bool
    repeated: int
    seconds: float
    ttft: float
    forwards: int
    finish_reason: str | None

    @property
    def said(self) -> int:
        """Tokens less those of a loop."""
        return self.tokens - self.repeated


@dataclass(frozen=True)
class Way:
    """How prompts become tokens and answers become text, beside the decoder's settings.

    Attributes:
        chat: the model's chat template is applied.
        start: the token that begins a text stands before every prompt, whatever else does.
        whole: every block is decoded to its end, and the text is cut afterwards; else a stop
            sequence ends the run, and so does the end of the answer.
        escape: stop sequences do not cut the text.
        count: which tokens count, one of :data:`COUNTS`.
    """

    chat: bool
    start: bool = False
    whole: bool = False
    escape: bool = False
    count: str = "answer"


class Run(NamedTuple):
    """A run with its text, the tokens that were said in it, and why it is over."""

    text: str
    said: tuple[int, ...]
    trace: Trace
    reason: str | None


def get_ready(model: Model, config: DecodeConfig, way: Way, questions: Sequence[Question]) -> None:
    """Compiles for the longest prompt and pays first-use costs, outside every clock."""
    context = model.config.max_length
    every = (prompt_ids(model.tokenizer, way, each.prompt) for each in questions)
    prompts = [room(ids, context, config) for ids in every]
    prepare(model, max(map(len, prompts)), config)
    own = fitted(config, context - len(prompts[0]))
    for _ in islice(stream(model, prompts[0], own), WARM_UP_FORWARDS):
        pass


def answer(model: Model, config: DecodeConfig, way: Way, question: Question) -> Answer:
    """Answers one question; its prompt loses its beginning where the context is too short."""
    ids = prompt_ids(model.tokenizer, way, question.prompt)
    if question.repeat:
        config = replace(config, seed=config.seed + question.repeat)
    if way.whole and isinstance(config, D2FConfig):
        config = replace(config, early_stop=False)
    kept = room(ids, model.config.max_length, config)
    config = fitted(config, model.config.max_length - len(kept))
    run = _whole if way.whole else _until
    text, said, trace, reason = run(model, kept, config, () if way.escape else question.stops)
    loop = repeated([each for each in said if each not in model.tokenizer.stop_ids])
    return Answer(
        task=question.task,
        problem=question.problem,
        repeat=question.repeat,
        text=text,
        prompt_tokens=len(kept),
        cut=len(ids) - len(kept),
        tokens=COUNTS[way.count](said, text, model.tokenizer),
        looping=loop > 0,
        repeated=loop if way.count == "answer" else 0,
        seconds=trace.seconds,
        ttft=trace.ttft,
        forwards=trace.forwards,
        finish_reason=reason,
    )


def prompt_ids(tokenizer: Tokenizer, way: Way, prompt: str) -> list[int]:
    """A prompt's tokens; a template has written its own beginning."""
    if not way.start:
        return tokenizer.encode_raw(prompt, start=not way.chat)
    if tokenizer.start_id is None:
        raise InvalidInput("this protocol needs a token that begins a text; the model has none")
    return [tokenizer.start_id, *tokenizer.encode_raw(prompt, start=False)]


def room(ids: Sequence[int], context: int, config: DecodeConfig) -> list[int]:
    """The end of a prompt, as much of it as the context has room for beside the answer."""
    most = context - config.max_new_tokens
    # The canvas of a decoder without a cache may shrink instead.
    if fitted(config, max(1, context - len(ids))) != config:
        most = context - 1
    if most < 1:
        raise InvalidInput(
            f"max_new_tokens={config.max_new_tokens} leaves no room for a prompt in the model's "
            f"context of {context} tokens"
        )
    return list(ids[-most:])


def _until(model: Model, ids: list[int], config: DecodeConfig, stops: Sequence[str]) -> Run:
    """The text up to a stop sequence, where the run ends."""
    header, events = trace_header(model, ids, config), list[StepEvent]()
    source = _kept(stream(model, ids, config), events)
    said = list(spoken(source, header, model.tokenizer, stops))
    trace = Trace(header, tuple(events))
    text = "".join(each.text for each in said)
    return Run(text, trace.token_ids[: said[-1].tokens], trace, said[-1].reason)


def _kept(source: Iterator[StepEvent], events: list[StepEvent]) -> Generator[StepEvent, None, None]:
    """The events as they come, kept in a list as well."""
    for event in source:
        events.append(event)
        yield event


def _whole(model: Model, ids: list[int], config: DecodeConfig, stops: Sequence[str]) -> Run:
    """As the released scripts do: everything decoded counts, and the text is cut at its end."""
    header = trace_header(model, ids, config)
    trace = Trace(header, tuple(stream(model, ids, config)))
    every = tuple(trace.canvas[position] for position in sorted(trace.canvas))
    until = UpToStop(stops)
    text = until.add(model.tokenizer.decode(every))
    return Run(text + until.rest(), every, trace, trace.finish_reason)


def _all(said: Sequence[int], text: str, tokenizer: Tokenizer) -> int:
    """Dream's scripts: every token decoded but ends of a text, cut off or not."""
    return sum(each not in (tokenizer.end_id, tokenizer.pad_id) for each in said)


def _text(said: Sequence[int], text: str, tokenizer: Tokenizer) -> int:
    """LLaDA's scripts: the tokens that the text makes once it is cut."""
    return len(tokenizer.encode_raw(text, start=False))


# How tokens are counted: up to the end of the answer (a stop token counts), or as either of the
# released scripts counts, whose figures are not comparable with each other.
COUNTS: dict[str, Callable[[Sequence[int], str, Tokenizer], int]] = {
    "answer": lambda said, text, tokenizer: len(said),
    "text": _text,
    "all": _all,
}
