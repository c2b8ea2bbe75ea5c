"""Makes conversations of the intents: a question, its answer, and what may follow.

Held out are whole phrasings, pairs of a phrasing and a row of a table, and combinations of the
visitor's own words: each is a part of the problem, and a problem with a held-out part is for tests
only. So no training conversation has a phrasing, a pair or a combination that a test asks for.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from d2f.tasks.problem import Problem, Turn
from d2f.tasks.talk import grammar, noise
from d2f.tasks.talk.figures import figures
from d2f.tasks.talk.grammar import Intent, Row, fill, first, slots_of

# What can be asked about any answer, by the intent in turns.txt that phrases it.
ABOUT = {"turn.why": "why", "turn.more": "more", "turn.short": "short", "turn.sure": "sure"}
CLOSING = ("thanks", "ok", "laugh", "praise", "bye", "wow")
LONGEST = 3
# Where a new topic comes from.
TOPICS = ("talk", "talk", "itself", "facts", "facts", "writing")


@dataclass(frozen=True)
class Said:
    """One turn: what was asked, the answer, how to judge it, and what decides its split."""

    prompt: str
    answer: str
    expected: str
    parts: tuple[str, ...]
    intent: Intent | None = None
    row: Row | None = None
    slots: Mapping[str, str] = field(default_factory=dict)
    wording: str = ""
    origin: Intent | None = None


@dataclass(frozen=True)
class Words:
    """Words for the slots: as a visitor writes them, as answers do, and which are free."""

    written: dict[str, str]
    answered: dict[str, str]
    free: tuple[str, ...]


def expectation(intent: Intent, asked: str, slots: Mapping[str, str]) -> str:
    """What a scorer must find in an answer: which one it is, and the words in it."""
    rows = grammar.source_rows(intent)
    said = {}
    for lead, name in reversed(grammar.SLOT.findall(intent.answers[asked])):
        word = slots[name.lower()]
        starts = name[0].isupper() and not lead and not (rows and name.lower() in rows[0])
        said[name.lower()] = grammar.capital(word) if starts else word
    return json.dumps({"intent": intent.name, "asked": asked, "slots": said}, sort_keys=True)


def ask(
    rng: random.Random, intent: Intent, amount: float, given: Mapping[str, str] | None = None
) -> Said:
    """One way to ask for an intent; `given` slots come from an earlier turn."""
    phrasing = rng.choice(intent.phrasings)
    row = _row(rng, intent, phrasing)
    words = _words(rng, phrasing, row, given or {})
    slots = words.answered
    wording = rng.choice(grammar.owned()[intent.name, phrasing])
    return Said(
        prompt=_written(rng, wording, words, amount),
        answer=fill(intent.answer, slots),
        expected=expectation(intent, "", slots),
        parts=_parts(intent, phrasing, row, words),
        intent=intent,
        row=row,
        slots=slots,
        wording=noise.bare(wording),
    )


def _written(rng: random.Random, wording: str, words: Words, amount: float) -> str:
    return noise.dress(fill(wording, words.written), rng, words.written.values(), amount)


def _row(rng: random.Random, intent: Intent, phrasing: str) -> Row | None:
    """A row of the intent's table: of those that a phrasing cannot tell apart, the first."""
    if "from" not in intent.options:
        return None
    if "start" in intent.options:
        return intent.rows[int(intent.options["start"])]
    said = sorted(slots_of(phrasing) & set(intent.rows[0]))
    apart: dict[tuple[str, ...], Row] = {}
    for row in intent.rows:
        apart.setdefault(tuple(first(row[name]) for name in said), row)
    return rng.choice(list(apart.values()))


def _words(rng: random.Random, phrasing: str, row: Row | None, given: Mapping[str, str]) -> Words:
    row = row or {}
    written, answered = dict(given), {**figures(), **given}
    for name, cell in row.items():
        spellings = cell.split(" ~ ")
        written[name] = spellings[0] if rng.random() < 0.6 else rng.choice(spellings)
        answered[name] = spellings[0]
    free = sorted(slots_of(phrasing) - written.keys())
    for name in free:
        words = grammar.lists()[name]
        unused = [word for word in words if word not in written.values()]
        written[name] = answered[name] = rng.choice(unused)
    return Words(written, answered, tuple(free))


def _parts(intent: Intent, phrasing: str, row: Row | None, words: Words) -> tuple[str, ...]:
    parts = [f"{intent.name}/{phrasing}"]
    if row and slots_of(phrasing) & row.keys():
        parts.append(f"{intent.name}/{phrasing}/{first(next(iter(row.values())))}")
    if words.free:
        parts.append(f"{intent.name}: " + ", ".join(words.answered[name] for name in words.free))
    return tuple(parts)


def phrased_with(
    rng: random.Random, name: str, amount: float
) -> tuple[str, str, dict[str, str], str]:
    """For an intent whose answer is made elsewhere: prompt, phrasing as a part, words, wording."""
    phrasing, wording = _phrased(rng, name)
    words = _words(rng, phrasing, None, {})
    said = {slot: words.answered[slot] for slot in words.free}
    return _written(rng, wording, words, amount), f"{name}/{phrasing}", said, noise.bare(wording)


def _phrased(rng: random.Random, name: str) -> tuple[str, str]:
    """A phrasing of an intent, and one of its wordings."""
    phrasing = rng.choice(grammar.intents()[name].phrasings)
    return phrasing, rng.choice(grammar.owned()[name, phrasing])


def _about(rng: random.Random, last: Said, name: str, amount: float) -> Said | None:
    """A question about the last answer: why, more, shorter."""
    asked = ABOUT[name]
    if last.intent is None or not last.intent.answers.get(asked):
        return None
    phrasing, wording = _phrased(rng, name)
    return Said(
        prompt=_written(rng, wording, Words({}, {}, ()), amount),
        answer=fill(last.intent.answers[asked], last.slots),
        expected=expectation(last.intent, asked, last.slots),
        parts=(f"{name}/{phrasing}",),
        wording=noise.bare(wording),
    )


def _again(rng: random.Random, last: Said, name: str, row: Row, amount: float) -> Said:
    """The same intent once more, with another row."""
    assert last.intent is not None
    phrasing, wording = _phrased(rng, name)
    column = last.intent.options.get("and", "")
    words = _words(rng, "", row, last.slots)
    if column:
        words.written["other"] = words.written[column]
    return Said(
        prompt=_written(rng, wording, words, amount),
        answer=fill(last.intent.answer, words.answered),
        expected=expectation(last.intent, "", words.answered),
        parts=(f"{name}/{phrasing}",),
        wording=noise.bare(wording),
        intent=last.intent,
        row=row,
        slots=words.answered,
    )


def _another(rng: random.Random, last: Said, amount: float) -> Said | None:
    """The next row, after an answer or after what follows it."""
    intent = last.origin or last.intent
    if intent is None or last.row is None or "next" not in intent.options:
        return None
    rows = intent.rows
    following = rows[(rows.index(last.row) + 1) % len(rows)]
    return _again(rng, replace(last, intent=intent), "turn.another", following, amount)


def _and(rng: random.Random, last: Said, amount: float) -> Said | None:
    if last.intent is None or last.row is None or "and" not in last.intent.options:
        return None
    column = last.intent.options["and"]
    rows = {first(row[column]): row for row in reversed(last.intent.rows)}
    rows.pop(first(last.row[column]), None)
    return _again(rng, last, "turn.and", rng.choice(list(rows.values())), amount)


def _fitting(said: Sequence[Said]) -> list[tuple[Intent, Said]]:
    """The intents that can follow, each with the turn it refers to."""
    return [
        (intent, earlier)
        for intent in _followers()
        for earlier in (said if "gap" in intent.options else said[-1:])
        if earlier.intent and earlier.intent.name in intent.follows
    ]


@cache
def _followers() -> tuple[Intent, ...]:
    return tuple(intent for intent in grammar.intents().values() if intent.follows)


def _after(rng: random.Random, said: Sequence[Said], amount: float) -> Said | None:
    """What only follows another intent: a name asked back, a riddle given up."""
    fitting = _fitting(said)
    if not fitting:
        return None
    intent, earlier = rng.choice(fitting)
    new = ask(rng, intent, amount, earlier.slots)
    return replace(new, row=earlier.row, origin=earlier.intent)


def _shadowed(said: Sequence[Said], new: Said) -> bool:
    """Whether these words mean something else after what was said."""
    return any(
        new.intent is not intent and new.wording in _bare_of(intent.name)
        for intent, _ in _fitting(said)
    )


def _barred(said: Sequence[Said], new: Said) -> bool:
    """Whether the answer would deny what was said."""
    names = {earlier.intent.name for earlier in said if earlier.intent}
    return new.intent is not None and not names.isdisjoint(new.intent.barred)


@cache
def _bare_of(name: str) -> frozenset[str]:
    phrasings = grammar.intents()[name].phrasings
    return frozenset(
        noise.bare(wording) for each in phrasings for wording in grammar.owned()[name, each]
    )


def _closing(rng: random.Random, amount: float) -> Said:
    return ask(rng, grammar.intents()[rng.choice(CLOSING)], amount)


def _new_topic(rng: random.Random, amount: float) -> Said:
    return opening(rng, rng.choice(TOPICS), amount)


def follow(rng: random.Random, said: Sequence[Said], amount: float) -> Said:
    """A next turn that fits what was said."""
    while True:
        new = _follow(rng, said, amount)
        if not _shadowed(said, new) and not _barred(said, new):
            return new


def _follow(rng: random.Random, said: Sequence[Said], amount: float) -> Said:
    last = said[-1]
    way = rng.random()
    more: Said | None = None
    if way < 0.3:
        more = _after(rng, said, amount) or _another(rng, last, amount)
    elif way < 0.5:
        more = _and(rng, last, amount) or _another(rng, last, amount)
    elif way < 0.75:
        more = _about(rng, last, rng.choice(list(ABOUT)), amount)
    elif way < 0.87:
        more = _closing(rng, amount)
    return more or _new_topic(rng, amount)


def opening(rng: random.Random, family: str, amount: float) -> Said:
    """A first question of a family."""
    intents = grammar.of_family(family)
    return ask(rng, rng.choices(intents, [intent.weight for intent in intents])[0], amount)


def problem(task: str, said: Sequence[Said]) -> Problem:
    """The conversation as a problem."""
    return Problem(
        task=task,
        key=" | ".join(part for turn in said for part in turn.parts),
        turns=tuple(Turn(turn.prompt, turn.answer) for turn in said),
        expected=tuple(turn.expected for turn in said),
        parts=tuple(part for turn in said for part in turn.parts),
    )


def maker(task: str, family: str, goes_on: float) -> Callable[[random.Random, float], Problem]:
    """Makes conversations that a family opens; `goes_on` is the chance of each further turn."""

    def make(rng: random.Random, difficulty: float) -> Problem:
        said = [opening(rng, family, difficulty)]
        while len(said) < LONGEST and rng.random() < goes_on:
            said.append(follow(rng, said, difficulty))
        return problem(task, said)

    return make
