"""The page's API: ``/race`` and ``/generate``, for gradio_client, curl and MCP clients.

Both stream, and both take their turn on the device behind the page's visitors.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from app.lanes import Lane, live_lane, warm_model
from app.prompts import check_prompt
from app.race import Race
from app.run import SETTINGS, tell
from d2f.config import decoder_name
from d2f.registry import PAIRS, catalogue_decoder, default_config

CALLERS = 16


def add_endpoints(device: str, dtype: str) -> None:
    """Adds both endpoints to the Blocks that are being built."""

    def race(prompt: str, pair: str = "mini", settings: dict | None = None) -> Iterator[dict]:
        """Races D2F against its autoregressive baseline on one prompt, and streams the events.

        Args:
            prompt: What both models are asked.
            pair: Which pair of models races.
            settings: Changes to the pair's settings by name, such as {"tau_conf": 0.8}.
        """
        yield from _race(prompt, pair, settings or {}, device, dtype)

    def generate(
        prompt: str,
        model: str = "mini-d2f",
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[dict]:
        """Answers a prompt with one model, and streams the readable text with its figures.

        Args:
            prompt: What the model is asked.
            model: A model of the catalogue: mini-d2f, mini-ar or mini-dllm.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 takes the likeliest token; more adds chance.
            seed: Makes chance repeatable.
        """
        changes = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        yield from _generate(prompt, model, changes, device, dtype)

    for endpoint in (race, generate):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=CALLERS)


def _race(
    prompt: str, pair: str, changes: dict[str, Any], device: str, dtype: str
) -> Iterator[dict[str, Any]]:
    if pair not in PAIRS:
        raise gr.Error(f"pair must be one of {sorted(PAIRS)}, got {pair!r}")
    if not isinstance(changes, dict):
        raise gr.Error(f"settings must be an object, got {changes!r}")
    unknown = sorted(set(changes) - set(SETTINGS))
    if unknown:
        raise gr.Error(f"unknown settings {unknown}; known: {list(SETTINGS)}")
    values = [changes.get(name, getattr(PAIRS[pair].config, name)) for name in SETTINGS]
    for told in tell(prompt, pair, values, None, device, dtype):
        for message in json.loads(told.packed)["messages"]:
            if message["kind"] == "error":
                raise gr.Error(message["text"])
            yield message


def _generate(
    prompt: str, name: str, changes: dict[str, Any], device: str, dtype: str
) -> Iterator[dict[str, Any]]:
    try:
        if catalogue_decoder(name) is None:
            raise ValueError(f"model must be one of the catalogue's, got {name!r}")
        config = replace(default_config(name), **changes)
        chat = [{"role": "user", "content": check_prompt(prompt)}]

        def prepare() -> list[Lane]:
            model = warm_model(name, decoder_name(config), device, dtype)
            return [live_lane(name, model, chat, config)]

        race = Race(prepare)
        for _ in race.batches():  # empty ones keep the caller's line alive while it waits
            yield _progress(race.lanes[0]) if race.lanes else {"text": "", "phase": race.phase}
        yield _progress(race.lanes[0])
    except ValueError as error:
        raise gr.Error(str(error)) from error


def _progress(lane: Lane) -> dict[str, Any]:
    trace = lane.trace
    return {"text": trace.text, **trace.metrics}
