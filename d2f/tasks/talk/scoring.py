"""Judges an answer by what it says: it must parse, with the intent and the words expected."""

from __future__ import annotations

import json

from d2f.tasks.talk.grammar import Reading, parse
from d2f.tasks.talk.stories import judge_story


def judge(text: str, expected: str) -> bool:
    """Whether the answer has a reading as the expected intent with the expected slots."""
    wanted = json.loads(expected)
    if "form" in wanted:
        return judge_story(text, wanted["kind"], wanted["slots"])
    slots = tuple(sorted(wanted["slots"].items()))
    return Reading(wanted["intent"], wanted["asked"], slots) in parse(text)
