"""The measurement: lanes take turns problem by problem, and rows add up what came of it.

All lanes answer the same prompts greedily, one at a time, in one process; who goes first changes
from problem to problem, so that a machine that slows down slows every lane alike. Seconds come from
the Trace, which counts inside the decoder only: scoring and text cost no lane anything. Knows no
command line and no print.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean, median
from typing import Any

from d2f.config import DecodeConfig, VanillaConfig, config_to_dict
from d2f.decode import generate, prepare, stream
from d2f.errors import InvalidInput
from d2f.model import Model
from d2f.tasks import TALK, TASKS, Problem, draw

ALL = "all"
WARM_UP_PROBLEMS, WARM_UP_FORWARDS = 2, 16


@dataclass(frozen=True, eq=False)
class Lane:
    """A decoder with its model and settings; it takes the first ``problems`` of every task."""

    decoder: str
    model: Model
    config: DecodeConfig
    problems: int


@dataclass(frozen=True)
class Outcome:
    """One problem answered by one lane: the Trace's figures and the scorer's verdict.

    ``correct`` is true or false, or a share in between where a scorer gives shares.
    """

    decoder: str
    config: DecodeConfig
    task: str
    correct: float
    tokens: int
    seconds: float
    ttft: float
    forwards: int


@dataclass(frozen=True)
class Row:
    """A lane over the problems of a task, or over those of all tasks together.

    ``problems`` counts answers: of a conversation, one for each turn.
    ``tokens_per_second`` is all tokens over all seconds; ``ttft`` is the median of the problems.
    """

    decoder: str
    model: str
    task: str
    config: dict[str, Any]
    problems: int
    accuracy: float
    tokens: int
    seconds: float
    tokens_per_second: float
    ttft: float
    forwards: int
    tokens_per_forward: float
    ms_per_forward: float


def check_configs(configs: Mapping[str, DecodeConfig]) -> None:
    """Refuse settings, by decoder, under which the lanes would not run the same race."""
    canvases = {name for name, config in configs.items() if isinstance(config, VanillaConfig)}
    limits = {d: c.max_new_tokens for d, c in configs.items() if d not in canvases}
    if len(set(limits.values())) > 1:
        raise InvalidInput(f"max_new_tokens must be the same for d2f and ar, got {limits}")
    for decoder, config in configs.items():
        if config.temperature:
            raise InvalidInput(f"{decoder}.temperature must be 0 here, got {config.temperature}")


def held_out(tasks: Sequence[str], count: int, seed: int) -> dict[str, list[Problem]]:
    """The first ``count`` problems of each task's test stream."""
    return {task: list(islice(draw(task, "test", seed), count)) for task in tasks}


def schedule(
    lanes: Sequence[Lane], problems: Mapping[str, Sequence[Problem]]
) -> Iterator[tuple[Lane, Problem]]:
    """Who answers what, in order: a, b, c on one problem, then c, b, a on the next."""
    turns = [(index, problem) for own in problems.values() for index, problem in enumerate(own)]
    for turn, (index, problem) in enumerate(turns):
        for lane in lanes if turn % 2 == 0 else reversed(lanes):
            if index < lane.problems:
                yield lane, problem


def compile_ahead(lane: Lane, problems: Mapping[str, Sequence[Problem]]) -> None:
    """Compile what a compiled model's problems will need, outside the measurement."""
    if lane.model.fixed is not None:
        own = [problem for asked in problems.values() for problem in asked[: lane.problems]]
        longest = max(len(_prompt(lane, p, turn)[0]) for p in own for turn in asked_turns(p))
        prepare(lane.model, longest, lane.config)


def warm_up(lane: Lane, seed: int) -> None:
    """First-use costs, paid outside the measurement, on problems that are not in it."""
    for problem in islice(draw(next(iter(TASKS)), "train", seed), WARM_UP_PROBLEMS):
        prompt_ids, config = _prompt(lane, problem, 0)
        for _ in islice(stream(lane.model, prompt_ids, config), WARM_UP_FORWARDS):
            pass


def asked_turns(problem: Problem) -> range:
    """Of a conversation, every turn; of the four languages the first, as it was from the start."""
    return range(len(problem.turns) if problem.task in TALK else 1)


def answers(lane: Lane, problem: Problem) -> Iterator[Outcome]:
    """An outcome for each turn that is asked."""
    return (solve(lane, problem, turn) for turn in asked_turns(problem))


def solve(lane: Lane, problem: Problem, turn: int = 0) -> Outcome:
    """Answer one turn, after right answers to those before it, then have it scored."""
    prompt_ids, config = _prompt(lane, problem, turn)
    trace = generate(lane.model, prompt_ids, config)
    return Outcome(
        decoder=lane.decoder,
        config=lane.config,
        task=problem.task,
        correct=(TASKS | TALK)[problem.task].score(problem, trace.text, turn),
        tokens=trace.tokens,
        seconds=trace.seconds,
        ttft=trace.ttft,
        forwards=trace.forwards,
    )


def _prompt(lane: Lane, problem: Problem, turn: int) -> tuple[list[int], DecodeConfig]:
    prompt_ids = lane.model.tokenizer.encode_chat(problem.messages(turn))
    return prompt_ids, fitted(lane.config, lane.model.config.max_length - len(prompt_ids))


def fitted(config: DecodeConfig, room: int) -> DecodeConfig:
    """The settings for a prompt that leaves ``room`` tokens of the context.

    A canvas ends where the context does; for the other decoders max_new_tokens is the rule.
    """
    if isinstance(config, VanillaConfig) and 0 < room < config.max_new_tokens:
        return replace(config, max_new_tokens=room)
    return config


def rows(lanes: Sequence[Lane], outcomes: Sequence[Outcome]) -> list[Row]:
    """Per lane: a row for each task, then one for all of them together."""
    tasks = list(dict.fromkeys(outcome.task for outcome in outcomes))
    table = []
    for lane in lanes:
        own = [o for o in outcomes if (o.decoder, o.config) == (lane.decoder, lane.config)]
        for task in tasks:
            table.append(row(lane.model.name, task, [o for o in own if o.task == task]))
        table.append(row(lane.model.name, ALL, own))
    return table


def row(model: str, task: str, outcomes: Sequence[Outcome]) -> Row:
    """What the outcomes of one decoder, model and settings add up to."""
    first = outcomes[0]
    tokens = sum(outcome.tokens for outcome in outcomes)
    forwards = sum(outcome.forwards for outcome in outcomes)
    seconds = math.fsum(outcome.seconds for outcome in outcomes)
    return Row(
        decoder=first.decoder,
        model=model,
        task=task,
        config=config_to_dict(first.config),
        problems=len(outcomes),
        accuracy=fmean(outcome.correct for outcome in outcomes),
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        ttft=median(outcome.ttft for outcome in outcomes),
        forwards=forwards,
        tokens_per_forward=tokens / forwards,
        ms_per_forward=1000 * seconds / forwards,
    )


def ratios(table: Sequence[Row]) -> dict[str, float]:
    """D2F's tokens/s over each other decoder's, all tasks together, and the absolute speeds.

    A decoder that runs at several settings counts with its first.
    """
    together = [row for row in table if row.task == ALL]
    speeds = {row.decoder: row.tokens_per_second for row in reversed(together)}
    found = {
        f"d2f_vs_{decoder}": speeds["d2f"] / speed
        for decoder, speed in speeds.items()
        if decoder != "d2f" and "d2f" in speeds
    }
    return found | {f"{decoder}_tokens_per_second": speed for decoder, speed in speeds.items()}
