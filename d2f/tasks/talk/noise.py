"""Dresses a bare phrasing as visitors type: case, marks, politeness, contractions, slang, typos.

Words to be copied into the answer keep their letters, though not always their case. Knows nothing
of intents.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection

QUESTIONS = frozenset(
    "what what's whats who who's whos how how's where where's wheres when when's why which whose "
    "is are am was were do does did can could will would should shall have has may isn't aren't "
    "don't whats hows".split()
)
OPENERS = frozenset("hey hi hello ok so um well and yo hmm".split())
COMMANDS = frozenset(
    "tell give write make say name explain show help teach compose describe list count sing use "
    "create build translate invent draw play find solve calculate compute work add simplify "
    "convert let rhyme start continue recommend suggest define think pick code program implement "
    "entertain cheer surprise amuse spell repeat put share read summarise summarize".split()
)
FRONTS = (
    ("hey, ", 5),
    ("hi, ", 5),
    ("hello, ", 3),
    ("hey ", 3),
    ("ok, ", 3),
    ("ok ", 2),
    ("so, ", 3),
    ("um, ", 1),
    ("hmm, ", 1),
    ("well, ", 1),
    ("hi there, ", 1),
    ("yo, ", 1),
    ("quick question: ", 1),
    ("just wondering, ", 1),
)
COMMAND_FRONTS = (
    ("please ", 6),
    ("can you ", 6),
    ("could you ", 4),
    ("can you please ", 2),
    ("could you please ", 2),
    ("would you ", 1),
    ("i want you to ", 1),
    ("i'd like you to ", 1),
    ("pls ", 1),
    ("now ", 1),
)
BACKS = ((" please", 6), (", please", 3), (" pls", 2), (" for me", 1))
# Shorter phrasings get no "hey" before them.
ADDRESSED = 3
CONTRACTIONS = (
    ("what is", "what's"),
    ("who is", "who's"),
    ("where is", "where's"),
    ("how is", "how's"),
    ("that is", "that's"),
    ("it is", "it's"),
    ("i am", "i'm"),
    ("you are", "you're"),
    ("do not", "don't"),
    ("can not", "can't"),
    ("cannot", "can't"),
    ("is not", "isn't"),
    ("are not", "aren't"),
    ("did not", "didn't"),
    ("i would", "i'd"),
    ("i will", "i'll"),
    ("does not", "doesn't"),
    ("was not", "wasn't"),
    ("going to", "gonna"),
    ("want to", "wanna"),
)
SLANG = {
    "you": "u",
    "your": "ur",
    "are": "r",
    "please": "plz",
    "because": "cuz",
    "thanks": "thx",
    "tomorrow": "tmrw",
    "something": "sth",
    "really": "rly",
    "people": "ppl",
    "about": "abt",
    "know": "kno",
    "okay": "ok",
    "to": "2",
    "for": "4",
    "with": "w",
    "and": "&",
    "what": "wat",
    "the": "da",
}
RARE_SLANG = frozenset({"to", "for", "what", "the", "and", "know", "with"})
NEIGHBOURS = {
    "a": "s",
    "b": "v",
    "c": "v",
    "d": "f",
    "e": "r",
    "f": "g",
    "g": "h",
    "h": "j",
    "i": "o",
    "k": "l",
    "l": "k",
    "m": "n",
    "n": "m",
    "o": "p",
    "p": "o",
    "r": "t",
    "s": "d",
    "t": "y",
    "u": "i",
    "v": "b",
    "w": "e",
    "y": "u",
}
WORD = re.compile(r"[A-Za-z']+")


def dress(text: str, rng: random.Random, keep: Collection[str] = (), amount: float = 1.0) -> str:
    """A phrasing as somebody might type it; tidy with `amount` 0.

    Words of the phrases in `keep` get no typos.
    """
    if rng.random() >= 0.85 * amount:
        return tidy(text)
    kept = {word.lower() for phrase in keep for word in WORD.findall(phrase)}
    text = _polite(text, rng) if rng.random() < 0.3 else text
    if rng.random() < 0.6:
        text = contracted(text)
    sloppy = rng.random() < 0.45
    if not sloppy:
        return _marked(text, rng)
    if rng.random() < 0.35:
        text = _words(text, lambda word: _slang(word, rng), kept)
    if rng.random() < 0.3:
        text = _misspelt(text, rng, kept)
    return _careless(text, rng)


def tidy(text: str) -> str:
    """A capital at the start, "I" in capitals and the right mark at the end."""
    text = re.sub(r"(?<![\w.])i(?![\w.])", "I", text)
    return text[:1].upper() + text[1:] + _mark(text)


def _mark(text: str) -> str:
    if text[-1:] in "?!.:)_":
        return ""
    return "?" if is_question(re.split(r"[.,] ", text)[-1]) else "."


def is_question(text: str) -> bool:
    """Whether it starts with a question word, after words that open a talk."""
    words = WORD.findall(text.lower())
    while words and words[0] in (
        "hey",
        "hi",
        "hello",
        "ok",
        "so",
        "um",
        "well",
        "and",
        "yo",
        "hmm",
    ):
        words.pop(0)
    return bool(words) and words[0] in QUESTIONS


def bare(text: str) -> str:
    """What is left of a wording without its dress: two wordings alike in it may look alike."""
    words = re.sub(r"[^\w{}? .!,_:-]", "", contracted(text.lower()))
    words = re.sub(r"(?<=[\w}]) ?[?.!]+$", "", words)
    for front, _ in sorted(FRONTS, key=lambda pair: -len(pair[0])):
        if len(words.removeprefix(front).split()) >= ADDRESSED:
            words = words.removeprefix(front)
    for front, _ in sorted(COMMAND_FRONTS, key=lambda pair: -len(pair[0])):
        words = words.removeprefix(front) or words
    for back, _ in BACKS:
        words = words.removesuffix(back) or words
    return re.sub(r"(?<=\w)[?.!,:]+", "", words)


def _weighted(choices: tuple[tuple[str, int], ...], rng: random.Random) -> str:
    words, weights = zip(*choices, strict=True)
    return str(rng.choices(words, weights)[0])


def _polite(text: str, rng: random.Random) -> str:
    words = WORD.findall(text)
    if not words:
        return text
    if words[0].lower() in COMMANDS:
        way = rng.random()
        if way < 0.5:
            return _weighted(COMMAND_FRONTS, rng) + text
        if way < 0.7 and text[-1:].isalnum():
            return text + _weighted(BACKS, rng)
    return _weighted(FRONTS, rng) + text if len(words) >= ADDRESSED else text


def contracted(text: str) -> str:
    """With every contraction that English has for it."""
    for full, brief in CONTRACTIONS:
        text = re.sub(rf"(?i)\b{full}\b(?=.)", brief, text)
    return text


def _marked(text: str, rng: random.Random) -> str:
    way = rng.random()
    if way < 0.4:
        return tidy(text)
    if way < 0.6:
        return text + _mark(text)
    if way < 0.7:
        return tidy(text).rstrip(".?")
    return text


def _careless(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        text = text.replace("'", "")
    way = rng.random()
    if way < 0.5:
        text = text.lower()
    elif way < 0.56:
        text = text.upper()
    mark = _mark(text)
    ends = ("", "", "", mark, mark * 2, mark * 3, "!", "?!" if mark == "?" else "!!", " " + mark)
    return text + (rng.choice(ends) if mark else "")


def _words(text: str, change: Callable[[str], str], kept: Collection[str]) -> str:
    def one(match: re.Match[str]) -> str:
        return match[0] if match[0].lower() in kept else change(match[0])

    return WORD.sub(one, text)


def _slang(word: str, rng: random.Random) -> str:
    brief = SLANG.get(word.lower())
    if not brief or rng.random() < (0.85 if word.lower() in RARE_SLANG else 0.3):
        return word
    return brief


def _misspelt(text: str, rng: random.Random, kept: Collection[str]) -> str:
    """One longer word with a letter swapped, dropped, doubled or missed."""
    words = [m for m in WORD.finditer(text) if len(m[0]) > 4 and m[0].lower() not in kept]
    if not words:
        return text
    match = rng.choice(words)
    return text[: match.start()] + _typo(match[0], rng) + text[match.end() :]


def _typo(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    way = rng.random()
    if way < 0.4:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if way < 0.65:
        return word[:at] + word[at + 1 :]
    if way < 0.8:
        return word[:at] + word[at] + word[at:]
    return word[:at] + NEIGHBOURS.get(word[at].lower(), word[at]) + word[at + 1 :]
