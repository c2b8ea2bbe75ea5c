"""The page's API: ``/race`` and ``/generate``, for gradio_client, curl and MCP clients.

Both stream, both take their turn on the device behind the page's visitors, and a caller has one
run at a time, as a visitor has: a new one of the same session ends the one before. What fails is
the stream's last event, ``{"kind": "error", "text": ...}``, and then the call's error as well: a
loop over the events sees the one, who asks for the result the other.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from reprlib import repr as brief
from typing import Any

import gradio as gr

from d2f.catalogue.pairs import catalogue_decoder, default_config
from d2f.errors import D2FError, InvalidInput

from ..failures import words
from ..lanes.lane import Host, Lane, Solo, solo_lanes
from ..lanes.runners import RivalPair
from ..prompts import check_prompt
from ..race import STOPPED, Race, here
from ..recordings.limits import check_settings
from .messages import SETTINGS, sound
from .tell import INTERVALS, REAL_TIME, SLOW_MOTION, tell
from .visitors import Visitor, Visitors, visitor

CALLERS = 16
ENDED = "The run was ended: another one of the same session began. A session has one at a time."

Event = dict[str, Any]


def add_endpoints(host: Host, chosen: str, visitors: Visitors) -> None:
    """Adds both endpoints to the Blocks that are being built."""

    def race(
        prompt: str, request: gr.Request, pair: str = chosen, settings: dict | None = None
    ) -> Iterator[dict]:
        """Races D2F against its autoregressive baseline on one prompt, and streams the events.

        Args:
            prompt: What both models are asked.
            pair: Which pair of models races.
            settings: Changes to the pair's settings by name, such as {"tau_conf": 0.8}.
        """
        yield from _told(_race(prompt, pair, settings, host, visitors, visitor(request)))

    def generate(
        prompt: str,
        request: gr.Request,
        model: str = "mini-d2f",
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[dict]:
        """Answers a prompt with one model, and streams the readable text with its figures.

        Args:
            prompt: What the model is asked.
            model: A model of a pair that races here, such as mini-d2f or mini-ar.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 takes the likeliest token; more adds chance.
            seed: Makes chance repeatable.
        """
        changes = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        yield from _told(_generate(prompt, model, changes, host, visitors, visitor(request)))

    for endpoint in (race, generate):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=CALLERS)


def _told(events: Iterator[Event]) -> Iterator[Event]:
    """The events; a failure is the last of them before it is the call's."""
    try:
        yield from events
    except Exception as error:
        text = words(error)
        yield {"kind": "error", "text": text}
        raise D2FError(text) from error


def _race(
    prompt: str,
    pair: str,
    changes: dict[str, Any] | None,
    host: Host,
    visitors: Visitors,
    caller: Visitor,
) -> Iterator[Event]:
    _check_text(prompt=prompt, pair=pair)
    if not isinstance(changes, dict | None):
        raise InvalidInput(f"settings must be an object, got {brief(changes)}")
    changes, config = changes or {}, host.pair(pair).config
    unknown = sorted(set(changes) - set(SETTINGS))
    if unknown:
        raise InvalidInput(f"unknown settings {brief(unknown)}; known: {list(SETTINGS)}")
    values = [changes.get(name, getattr(config, name)) for name in SETTINGS]
    with visitors.run(caller) as stop:
        for told in tell(prompt, pair, values, None, host, stop=stop):
            for message in told.messages:
                if message["kind"] == "error":
                    raise D2FError(message["text"])
                yield sound(message)


def _generate(
    prompt: str,
    name: str,
    changes: dict[str, Any],
    host: Host,
    visitors: Visitors,
    caller: Visitor,
) -> Iterator[Event]:
    _check_text(prompt=prompt, model=name)
    # A rival's model runs elsewhere: its name must not make this machine load it.
    own = {key: each for key, each in host.pairs.items() if not isinstance(each, RivalPair)}
    if catalogue_decoder(name, own) is None:
        raise InvalidInput(f"model must be one of the catalogue's, got {brief(name)}")
    config = replace(default_config(name, pairs=own), **changes)
    check_settings(config)
    asked = Solo(name, check_prompt(prompt), config)
    prepare = partial(host.elsewhere or here(solo_lanes), asked, host)
    with visitors.run(caller) as stop, Race(prepare, stop=stop) as race:
        interval = INTERVALS[SLOW_MOTION if host.engine.device == "cpu" else REAL_TIME]
        for _ in race.batches(interval):  # empty ones keep the line alive while it waits
            waiting = {"text": "", "phase": race.phase}
            yield _progress(race.lanes[0]) if race.lanes else waiting
        if race.phase == STOPPED:
            raise D2FError(ENDED)
        yield _progress(race.lanes[0])


def _check_text(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise InvalidInput(f"{name} must be text, got {brief(value)}")


def _progress(lane: Lane) -> Event:
    trace = lane.trace
    return {"text": trace.text, **trace.metrics}
