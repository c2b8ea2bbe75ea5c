"""Lanes that compute in a process which has the GPU for one call, as on Hugging Face's ZeroGPU.

One call owns both lanes and merges them by their clocks; its events come here one after the other.
The race here asks the lanes in the same order, since it reads the same clocks, so that everything
else stays as it is. Knows nothing of the package that lends the GPU.
"""

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import gradio as gr

from app.lanes import RACING, Host, Lane, Question, loaded_model, pair_lanes
from app.race import merge

SETUP_SECONDS = 20  # for weights on their way to the GPU, and the models' warm-up
SECONDS_PER_TOKEN = 0.1  # for both lanes together: two times what an 8 B model takes
LONGEST = 120

Steps = Generator[Any, None, None]


def duration(question: Question, host: Host) -> int:
    """Seconds of the GPU to ask for; asking for less than needed ends a run too early."""
    return min(LONGEST, SETUP_SECONDS + round(SECONDS_PER_TOKEN * question.config.max_new_tokens))


def compute(question: Question, host: Host) -> Steps:
    """What runs where the GPU is: what the lanes are, then every move of theirs."""
    lanes = pair_lanes(question, host)
    try:
        yield [(lane.name, lane.header, lane.chat) for lane in lanes]
        yield from merge(lanes)
    finally:
        for lane in lanes:
            lane.close()


def borrowing(borrowed: Callable[[Question, Host], Steps]) -> Callable[..., list[Lane]]:
    """``pair_lanes`` by way of ``borrowed``, which is :func:`compute` run where the GPU is."""

    def lanes_elsewhere(question: Question, host: Host) -> list[Lane]:
        steps = borrowed(question, replace(host, borrowed=None))
        try:
            described = next(steps)
        except gr.Error as error:  # the lender's own words: no GPU, or no time left
            raise ValueError(error.message) from error
        lanes, running = [], set(range(len(described)))
        for index, (name, header, chat) in enumerate(described):
            model, _ = question.pair.lanes[RACING[index]]
            tokenizer = loaded_model(model, host).tokenizer
            source = _events(index, steps, running)
            next(source)  # begun, so that closing it is noticed
            text, decode = tokenizer.token_text, tokenizer.decode
            lanes.append(Lane(name, header, source, text, decode, chat))
        return lanes

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
