"""What the page's form is made of: model pairs, settings, presets, prompts to begin with.

Plain values, which the board's script gets once. Knows nothing of gradio.
"""

import re
from collections.abc import Mapping, Sequence

from typing_extensions import TypedDict

from d2f.bench.suite import ALL
from d2f.bench.tables import Result
from d2f.config import COMMIT_RULES, D2FConfig, DecodeConfig, config_from_dict, settings_of
from d2f.tasks import TASKS, Problem

from ..lanes.lane import Host
from .messages import SETTINGS

MEASURED = "mini"  # the pair of the committed benchmarks

Settings = dict[str, float | str | None]


class Preset(TypedDict):
    """Settings to choose at once; ``told`` says what they were worth."""

    name: str
    told: str
    settings: Settings


class PairChoice(TypedDict):
    """A model pair, and the settings that it begins with."""

    name: str
    title: str
    settings: Settings
    presets: list[Preset]


class SettingText(TypedDict):
    """A setting's name for people, and what it does.

    ``choices``: all its values, where these are words. ``rules``: the commit rules under which it
    counts, where it does not count under all.
    """

    name: str
    label: str
    text: str
    choices: list[str]
    rules: list[str]


class Example(TypedDict):
    """A prompt to begin with, and its kind."""

    prompt: str
    task: str


class Form(TypedDict):
    """All of it; ``pair`` is chosen at first, ``refused`` says of others why they cannot run."""

    pair: str
    pairs: list[PairChoice]
    refused: list[str]
    settings: list[SettingText]
    examples: list[Example]


def form(
    pair: str, host: Host, known: Mapping[str, Sequence[Problem]], results: Sequence[Result]
) -> Form:
    """The form of a page that runs on ``host``."""
    measured = presets(results)
    return {
        "pair": pair,
        "pairs": [
            {
                "name": each.name,
                "title": each.title,
                "settings": {name: getattr(each.config, name) for name in SETTINGS},
                "presets": measured if each.name == MEASURED else [],
            }
            for each in host.pairs.values()
        ],
        "refused": [f"{title}: {why}" for title, why in host.refused.items()],
        "settings": [_setting(name) for name in SETTINGS],
        "examples": _examples(known),
    }


def _setting(name: str) -> SettingText:
    setting = settings_of(D2FConfig)[name]
    both = " Both lanes." if name in settings_of(DecodeConfig) else ""
    named, colon, _ = setting.text.partition(":")
    for_rules = set(re.split("[ ,]+", named)) if colon and named.startswith("Rule") else set()
    return {
        "name": name,
        "label": setting.label,
        "text": setting.text + both,
        "choices": list(setting.choices),
        "rules": [rule for rule in COMMIT_RULES if rule in for_rules],
    }


def _examples(known: Mapping[str, Sequence[Problem]]) -> list[Example]:
    """One of each kind, then the next of each."""
    rows = zip(*known.values(), strict=True)
    return [
        {"prompt": problem.prompt, "task": TASKS[problem.task].title}
        for row in rows
        for problem in row
    ]


def presets(results: Sequence[Result]) -> list[Preset]:
    """Three measured points of the widest sweep: the fastest, the best of the right ones, the
    surest; none without a sweep.
    """
    sweeps = [
        [row for row in result["results"] if (row["decoder"], row["task"]) == ("d2f", ALL)]
        for result in results
    ]
    rows = max(sweeps, key=len, default=[])
    if len(rows) < 3:
        return []
    best = [row for row in rows if row["accuracy"] == max(row["accuracy"] for row in rows)]
    chosen = {
        "Faster": max(rows, key=_speed),
        "Balanced": max(best, key=_speed),
        "More careful": max(best, key=lambda row: (row["config"]["tau_conf"], -_speed(row))),
    }
    return [_preset(name, row) for name, row in chosen.items()]


def _speed(row: Result) -> float:
    return float(row["tokens_per_second"])


def _preset(name: str, row: Result) -> Preset:
    told = f"{_speed(row):.0f} tokens/s, {row['accuracy']:.1%} solved"
    config = config_from_dict("d2f", row["config"])  # measured before there were some settings
    settings: Settings = {each: getattr(config, each) for each in SETTINGS}
    return {"name": name, "told": told, "settings": settings}
