"""Lanes that compute in another process: what it tells of a run, and lanes made of that here.

There the lanes are merged by their clocks; here each event goes to its lane as it comes. Knows
nothing of how the two processes talk.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any

from d2f.checkpoints.load import load_tokenizer
from d2f.detokenizer import TokenTexts
from d2f.events import TraceHeader
from d2f.tokenizer import Tokenizer

from ..race import here, never
from .folders import found_model
from .lane import (
    Asked,
    Host,
    Lane,
    Moved,
    Opened,
    Question,
    Stopped,
    Texts,
    pair_lanes,
    solo_lanes,
)

Steps = Generator[Any, None, None]


def compute(asked: Asked, host: Host, stopped: Stopped = never) -> Steps:
    """What runs there: first a description of each lane, then every move of theirs."""
    opened = here(pair_lanes if isinstance(asked, Question) else solo_lanes)
    lanes, moves = opened(asked, host, stopped)
    try:
        for lane in lanes:
            lane.get_ready(stopped)
        yield [(lane.name, lane.header, lane.chat) for lane in lanes]
        yield from moves
    finally:
        for lane in lanes:
            lane.close()


@lru_cache(maxsize=16)
def _tokenizer(name: str, host: Host) -> Tokenizer:
    return load_tokenizer(found_model(name, host.models_dir))


def _placed(reader: Tokenizer, header: TraceHeader) -> Callable[[], Texts]:
    return lambda: TokenTexts(reader, len(header.prompt_ids)).add


def borrowing(
    borrowed: Callable[[Asked, Host, Stopped], Steps],
) -> Callable[[Asked, Host, Stopped], Opened]:
    """Opens lanes by way of ``borrowed``, which is :func:`compute` run elsewhere.

    Closing a lane closes the call, which all of them share. There are no lanes if the run was
    stopped before the call had begun.
    """

    def opened(asked: Asked, host: Host, stopped: Stopped) -> Opened:
        steps = borrowed(asked, replace(host, elsewhere=None), stopped)
        with ExitStack() as failing:
            failing.callback(steps.close)
            described: Sequence[Any] = next(steps, ())
            readers = [_tokenizer(name, host) for name in asked.models]
            lanes = [
                Lane(
                    name,
                    header,
                    steps,
                    reader.token_text,
                    reader.decode,
                    chat,
                    _placed(reader, header),
                )
                for (name, header, chat), reader in zip(described, readers, strict=False)
            ]
            failing.pop_all()
        return lanes, _moves(steps, lanes, stopped)

    return opened


def _moves(steps: Steps, lanes: Sequence[Lane], stopped: Stopped) -> Iterator[Moved]:
    for index, event in steps:
        lanes[index].take(event)
        yield index, event
        if stopped():
            return
