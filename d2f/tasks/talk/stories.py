"""Short stories with the visitor's hero, thing and place.

Opening and closing follow from the class of the hero, the plot from the class of the thing; what
the visitor does not name has a fixed default. The text lies in ``data/plots.txt``. A story is
judged by its form, by its sentences and by the visitor's words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache

from d2f.tasks.problem import Problem
from d2f.tasks.talk import grammar
from d2f.tasks.talk.conversation import LONGEST, Said, follow, phrased_with, problem
from d2f.tasks.talk.grammar import fill, lines_of, lists

NAME = "talk-story"
DEFAULTS = {"hero": "fox", "adj": "small"}
THINGS = {
    "animal": "lamp",
    "person": "letter",
    "machine": "flower",
    "magic": "drum",
    "nature": "kite",
    "royal": "bicycle",
}
PLACES = {
    "animal": "in the forest",
    "person": "in a small village",
    "machine": "in a big city",
    "magic": "in an old tower",
    "nature": "far from everything",
    "royal": "in a castle",
}
# Of adjectives, those that a good end changes.
TROUBLED = frozenset(
    "shy lonely sad lazy grumpy tired hungry nervous clumsy sleepy timid forgetful angry jealous "
    "bored poor scared".split()
)
# What "another one" brings after a thing of each class.
NEXT = {
    "light": "boat",
    "vehicle": "drum",
    "music": "book",
    "paper": "seed",
    "plant": "kite",
    "toy": "key",
    "tool": "hat",
    "clothes": "cake",
    "food": "ring",
    "treasure": "bird",
    "creature": "lamp",
}
FEWEST, MOST = 18, 110


@cache
def plots() -> dict[str, tuple[str, ...]]:
    """Sentences by the part of a story they belong to."""
    found: dict[str, tuple[str, ...]] = {}
    part = ""
    for line in lines_of("plots.txt"):
        if line.startswith("== "):
            part = line[3:]
            found[part] = ()
        else:
            found[part] += (line,)
    return found


def class_of(kind: str, word: str) -> str:
    """The class of a hero or a thing; that of people and of tools for unknown words."""
    for name, words in lists().items():
        if name.startswith(f"{kind}.") and word in words:
            return name.split(".")[1]
    return "person" if kind == "hero" else "tool"


def with_defaults(slots: Mapping[str, str]) -> dict[str, str]:
    """All words of a story: the visitor's, and fixed ones for what is not named."""
    full = {**DEFAULTS, **slots}
    hero = class_of("hero", full["hero"])
    full.setdefault("thing2", THINGS[hero])
    full.setdefault("place", PLACES[hero])
    if full["hero"] == full["thing2"]:
        full["thing2"] = NEXT[class_of("thing2", full["thing2"])]
    return full


def story(slots: Mapping[str, str]) -> str:
    """The story of these words."""
    words = with_defaults(slots)
    hero, thing = class_of("hero", words["hero"]), class_of("thing2", words["thing2"])
    end = "end.shy" if words["adj"] in TROUBLED else "end.fine"
    parts = ["start", f"open.{hero}", f"plot.{thing}", f"close.{hero}"]
    parts += [end] if "adj" in slots else []
    parts += ["end.name"] if "name" in slots else []
    return _told([*parts, "end"], words)


def _told(parts: Sequence[str], words: Mapping[str, str]) -> str:
    return " ".join(fill(line, words) for part in parts for line in plots()[part])


def brief(slots: Mapping[str, str]) -> str:
    """The same story in three sentences."""
    words = with_defaults(slots)
    met = class_of("thing2", words["thing2"]) == "creature"
    return _told(["meet.short" if met else "short"], words)


def _said(rng: random.Random, name: str, amount: float, slots: Mapping[str, str]) -> Said:
    """A turn about a story: `slots` are those of the story so far."""
    prompt, part, words, wording = phrased_with(rng, name, amount)
    slots = {**slots, **words}
    kind = name.removeprefix("story.")
    if kind == "another":
        thing = with_defaults(slots)["thing2"]
        slots["thing2"] = NEXT[class_of("thing2", thing)]
    full = with_defaults(slots)
    answers = {
        "short": lambda: brief(slots),
        "then": lambda: _told([f"then.{class_of('hero', full['hero'])}"], full),
        "why": lambda: _told(["why"], full),
    }
    answer = answers[kind]() if kind in answers else story(slots)
    expected = json.dumps({"form": "story", "kind": kind, "slots": slots})
    parts = [part]
    if words:
        parts.append("story: " + ", ".join(words[slot] for slot in sorted(words)))
    return Said(prompt, answer, expected, tuple(parts), slots=slots, wording=wording)


OPENINGS = (
    "story",
    "story.bedtime",
    "story.hero",
    "story.adj",
    "story.thing",
    "story.full",
    "story.place",
    "story.place.thing",
    "story.child",
    "story.child.hero",
)
FOLLOWING = ("story.another", "story.swap", "story.short", "story.then", "story.why")


def opening(rng: random.Random, amount: float) -> Said:
    """A first request for a story."""
    weights = [grammar.intents()[name].weight for name in OPENINGS]
    return _said(rng, rng.choices(OPENINGS, weights)[0], amount, {})


def following(rng: random.Random, last: Said, amount: float) -> Said:
    """What a visitor asks after a story."""
    return _said(rng, rng.choice(FOLLOWING), amount, last.slots)


def make(rng: random.Random, difficulty: float) -> Problem:
    """A story, and at times a wish that follows it."""
    said = [opening(rng, difficulty)]
    while len(said) < LONGEST and rng.random() < 0.25:
        about = said[-1].intent is None and rng.random() < 0.75
        said.append((following if about else _onward)(rng, said[-1], difficulty))
    return problem(NAME, said)


def _onward(rng: random.Random, last: Said, amount: float) -> Said:
    return follow(rng, [last], amount)


def judge_story(text: str, kind: str, slots: Mapping[str, str]) -> bool:
    """Whether all sentences are of the grammar, with the visitor's words, from start to end."""
    full = with_defaults(slots)
    if kind in ("then", "why"):
        options = [part for part in plots() if part.split(".")[0] == kind]
        return text.strip() in {_told([part], full) for part in options}
    left = text.strip()
    known = {fill(line, {"name": "", **full}) for lines in plots().values() for line in lines}
    while sentence := next((s for s in known if left.startswith(s)), None):
        left = left[len(sentence) :].lstrip()
    said = {"hero", "adj", "thing2"} if kind == "short" else slots.keys()
    missing = [slot for slot in said & slots.keys() if slots[slot] not in text]
    fits = FEWEST <= len(text.split()) <= MOST
    return not left and not missing and fits and text.strip().endswith("The end.")
