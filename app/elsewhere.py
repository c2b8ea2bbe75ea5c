"""Lanes that compute in another process: what it tells of a run, and lanes made of that here.

One call owns all lanes and merges them by their clocks; its events come here one after the other.
The race here asks the lanes in the same order, since it reads the same clocks, so that everything
else stays as it is. Knows nothing of how the two processes talk.
"""

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from app.lanes import Asked, Host, Lane, Question, found_model, pair_lanes, solo_lanes
from app.race import merge
from d2f.checkpoints.load import load_tokenizer
from d2f.tokenizer import Tokenizer

Steps = Generator[Any, None, None]


def compute(asked: Asked, host: Host) -> Steps:
    """What runs there: what the lanes are, then every move of theirs."""
    lanes = pair_lanes(asked, host) if isinstance(asked, Question) else solo_lanes(asked, host)
    try:
        yield [(lane.name, lane.header, lane.chat) for lane in lanes]
        yield from merge(lanes)
    finally:
        for lane in lanes:
            lane.close()


@lru_cache(maxsize=16)
def _tokenizer(name: str, host: Host) -> Tokenizer:
    return load_tokenizer(found_model(name, host))


def borrowing(
    borrowed: Callable[[Asked, Host], Steps],
) -> Callable[[Asked, Host], list[Lane]]:
    """Lanes by way of ``borrowed``, which is :func:`compute` run elsewhere."""

    def lanes_elsewhere(asked: Asked, host: Host) -> list[Lane]:
        steps = borrowed(asked, replace(host, elsewhere=None))
        try:
            described = next(steps)
            lanes, running = [], set(range(len(described)))
            for index, (name, header, chat) in enumerate(described):
                reader = _tokenizer(asked.models[index], host)
                source = _events(index, steps, running)
                next(source)  # begun, so that closing it is noticed
                lanes.append(Lane(name, header, source, reader.token_text, reader.decode, chat))
            return lanes
        except BaseException:
            steps.close()  # there are no lanes that will
            raise

    return lanes_elsewhere


def _events(index: int, steps: Steps, running: set[int]) -> Steps:
    """One lane's part of the moves, up to its finish; the last lane to finish ends the call."""
    try:
        yield None
        for moved, event in steps:
            assert moved == index, "both sides read the same clocks"
            yield event
            if event.finish_reason is not None:
                return
    finally:
        running.discard(index)
        if not running:
            steps.close()
