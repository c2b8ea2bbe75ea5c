"""Judges an answer by what it says: it must parse, with the intent and the words expected."""

from __future__ import annotations

import json

from d2f.tasks import programming
from d2f.tasks.problem import same_final_answer
from d2f.tasks.talk.grammar import Reading, parse
from d2f.tasks.talk.stories import judge_story
from d2f.tasks.talk.writing import acrostic


def judge(text: str, expected: str) -> bool:
    """Whether the answer has a reading as the expected intent with the expected slots."""
    wanted = json.loads(expected)
    if "form" in wanted:
        return judge_story(text, wanted["kind"], wanted["slots"])
    if "acrostic" in wanted:
        return text.strip() == acrostic(wanted["acrostic"])
    if "sum" in wanted:
        return same_final_answer(text, wanted["sum"])
    if "calls" in wanted:
        return programming.judge(text, expected)
    slots = tuple(sorted(wanted["slots"].items()))
    return Reading(wanted["intent"], wanted["asked"], slots) in parse(text)
