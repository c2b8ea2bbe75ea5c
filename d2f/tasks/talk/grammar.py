"""Reads the data files: intents with phrasings and an answer, tables of facts, lists of words.

The format is described in ``data/FORMAT.md``. An answer is a function of intent and slots, so that
:func:`parse` can tell both from it. Knows nothing of noise, of turns or of splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from d2f.errors import InvalidInput
from d2f.tasks.talk.noise import bare

FILES = (
    "talk",
    "itself",
    "facts",
    "writing",
    "advice",
    "fallback",
    "turns",
    "story",
    "calc",
    "asks",
)
OPTIONS = ("from", "and", "next", "after", "unless", "gap", "start", "weight")
GROUP = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
SLOT = re.compile(r"\{(a |A |)(\w+)\}")
ANSWER = re.compile(r"([a-z]*)> ?(.*)")
OPTION = re.compile(rf"({'|'.join(OPTIONS)}): *(.+)")
# A visitor's words: no sentence ends in them, though a number may have a point.
FREE = r"(?:[^.!?\n]|\.(?=\d)){1,60}?"
SENTENCE_END = re.compile(r"(?<=[.!?]) ")
Row = Mapping[str, str]


@dataclass
class Intent:
    """What a visitor may want: ways to say it, the answer, and answers to what follows.

    ``follow`` holds the answers to "why", "more" and the like, by kind.
    """

    name: str
    family: str
    options: dict[str, str]
    answer: str = ""
    follow: dict[str, str] = field(default_factory=dict)
    phrasings: list[str] = field(default_factory=list)

    @property
    def weight(self) -> float:
        return float(self.options.get("weight", 1))

    @property
    def follows(self) -> tuple[str, ...]:
        """The intents it can follow; none where it can open a conversation."""
        return tuple(self.options.get("after", "").split())

    @property
    def barred(self) -> tuple[str, ...]:
        """The intents after which its answer would be wrong."""
        return tuple(self.options.get("unless", "").split())

    @property
    def answers(self) -> dict[str, str]:
        """Every answer this intent can get, by what was asked: "" is the question itself."""
        return {"": self.answer, "short": short(self.answer), **self.follow}

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of its table that have all that is needed; none without a table."""
        name, *conditions = self.options.get("from", "").split()
        return _fitting(name, tuple(conditions), tuple(sorted(self.columns)))

    @property
    def columns(self) -> set[str]:
        """The columns of its table that phrasings and answer speak of."""
        texts = [self.answer, *self.follow.values(), *self.phrasings]
        names = {slot.lower() for text in texts for _, slot in SLOT.findall(text)}
        return names & set(table(self.options["from"].split()[0])[0])


class Reading(NamedTuple):
    """What an answer says: which answer of which intent, and with which words."""

    intent: str
    asked: str
    slots: tuple[tuple[str, str], ...]


def text_of(name: str) -> str:
    """The text of a data file."""
    return files("d2f.tasks.talk").joinpath("data", name).read_text(encoding="utf-8")


def lines_of(name: str) -> Iterator[str]:
    """The lines of a data file, without comments and blank ones."""
    for line in text_of(name).split("\n"):
        if line.strip() and not line.startswith("#"):
            yield line.rstrip()


@cache
def table(name: str) -> tuple[Row, ...]:
    """The rows of a table, in the order of the file."""
    head, *rows = lines_of(f"tables/{name}.txt")
    columns = [column.strip() for column in head.split("|")]
    found = []
    for row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) != len(columns):
            raise InvalidInput(f"tables/{name}.txt: {len(columns)} cells are wanted in {row!r}")
        found.append(dict(zip(columns, cells, strict=True)))
    return tuple(found)


@cache
def _fitting(name: str, conditions: tuple[str, ...], columns: tuple[str, ...]) -> tuple[Row, ...]:
    wanted = [condition.split("=") for condition in conditions]
    return tuple(
        row
        for row in table(name)
        if all(row[column] for column in columns)
        and all(first(row[column]) == value for column, value in wanted)
    )


@cache
def lists() -> dict[str, tuple[str, ...]]:
    """The lists of words, by name; a list such as "hero.animal" is a part of the list "hero"."""
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in lines_of("lists.txt"):
        if line.startswith("== "):
            name = line[3:]
            found[name] = ()
        else:
            words = tuple(word.strip() for word in line.split(",") if word.strip())
            found[name] += words
            if "." in name:
                base = name.split(".")[0]
                found[base] = found.get(base, ()) + words
    return found


@cache
def intents() -> dict[str, Intent]:
    """All intents of all files, by name."""
    found: dict[str, Intent] = {}
    for file in FILES:
        for intent in _read(file):
            if intent.name in found:
                raise InvalidInput(f"{file}.txt: there are two intents {intent.name!r}")
            found[intent.name] = intent
    return found


def of_family(family: str) -> tuple[Intent, ...]:
    """The intents of one file that can open a conversation."""
    return tuple(
        intent
        for intent in intents().values()
        if intent.family == family and intent.answer and not intent.follows
    )


def _read(file: str) -> Iterator[Intent]:
    default = Intent("", file, {})
    intent = default
    for line in lines_of(f"{file}.txt"):
        if line.startswith("== "):
            if intent is not default:
                yield intent
            intent = Intent(line[3:], file, dict(default.options), "", dict(default.follow))
        else:
            _take(intent, line)
    if intent is not default:
        yield intent


def _take(intent: Intent, line: str) -> None:
    if option := OPTION.fullmatch(line):
        intent.options[option[1]] = option[2]
    elif answer := ANSWER.fullmatch(line):
        if answer[1]:
            intent.follow[answer[1]] = answer[2]
        else:
            intent.answer += "\n" * bool(intent.answer) + answer[2]
    else:
        intent.phrasings.append(line)


def first(cell: str) -> str:
    """The spelling of a cell that answers use."""
    return cell.split(" ~ ")[0]


def short(answer: str) -> str:
    """The first sentence, or the first line."""
    return SENTENCE_END.split(answer.split("\n")[0])[0]


def _ways(match: re.Match[str]) -> list[str]:
    if match[1] is None:
        return ["", *match[2].split("|")]
    ways = match[1].split("|")
    if len(ways) == 1:
        raise InvalidInput(f"[...] is wanted for what may be left out, got {match[0]!r}")
    return ways


def wordings(phrasing: str) -> list[str]:
    """All wordings of a phrasing, their slots still open, in a fixed order."""
    match = GROUP.search(phrasing)
    if not match:
        return [" ".join(phrasing.split())]
    before, after = phrasing[: match.start()], phrasing[match.end() :]
    return [text for way in _ways(match) for text in wordings(before + way + after)]


@cache
def owned() -> dict[tuple[str, str], tuple[str, ...]]:
    """The wordings of each phrasing of each intent that no earlier phrasing has.

    So no two phrasings ever produce the same words, however these are dressed. What follows
    another intent means something of its own there, so it may use anybody's words.
    """
    opening: set[str] = set()
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for intent in intents().values():
        seen = set[str]() if intent.follows else opening
        for phrasing in intent.phrasings:
            own = {bare(text): text for text in wordings(phrasing) if bare(text) not in seen}
            seen.update(own)
            found[intent.name, phrasing] = tuple(own.values())
    return found


VOWEL_SOUND = re.compile(r"(?i)(?:[aeio]|u(?!ni|s[eu]|k|til|ra[nl]|ga)|hour|honest|heir|x-|8)")


def article(word: str) -> str:
    """The word after "a" or "an"."""
    return f"{'an' if VOWEL_SOUND.match(word) and not word.startswith('one') else 'a'} {word}"


def fill(text: str, slots: Mapping[str, str]) -> str:
    """Sets words into the slots of a text; KeyError for an unknown slot."""

    def word(match: re.Match[str]) -> str:
        lead, name = match.groups()
        value = slots[name.lower()] if name not in slots else slots[name]
        value = article(value) if lead else value
        return capital(value) if lead == "A " or name[0].isupper() else value

    return SLOT.sub(word, text)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _all_answers() -> Iterator[tuple[Intent, str, str]]:
    for intent in intents().values():
        for asked, answer in intent.answers.items():
            if answer:
                yield intent, asked, answer


def slots_of(text: str) -> set[str]:
    """The names of the slots in a phrasing or an answer."""
    return {name.lower() for _, name in SLOT.findall(text)}


def _looked_up(intent: Intent, answer: str) -> bool:
    """Whether the answer is known word for word from the rows of a table."""
    rows = source_rows(intent)
    return bool(rows) and slots_of(answer) <= rows[0].keys()


@cache
def _rendered() -> dict[str, set[Reading]]:
    """The readings of all answers whose words come from tables."""
    found: dict[str, set[Reading]] = {}
    for intent, asked, answer in _all_answers():
        for row in source_rows(intent) if _looked_up(intent, answer) else ():
            words = {name: first(row[name]) for name in sorted(slots_of(answer))}
            reading = Reading(intent.name, asked, tuple(words.items()))
            found.setdefault(fill(answer, words), set()).add(reading)
    return found


@cache
def _patterns() -> tuple[tuple[Intent, str, re.Pattern[str]], ...]:
    return tuple(
        (intent, asked, _pattern(answer))
        for intent, asked, answer in _all_answers()
        if not _looked_up(intent, answer)
    )


def _pattern(answer: str) -> re.Pattern[str]:
    """Matches what :func:`fill` makes of an answer, with its slots as groups."""
    parts, seen, at = [], set[str](), 0
    for match in SLOT.finditer(answer):
        parts.append(re.escape(answer[at : match.start()]))
        lead, name = match[1], match[2]
        parts.append("[Aa]n? " if lead else "")
        group = name.lower()
        parts.append(f"(?i:(?P={group}))" if group in seen else f"(?P<{group}>{FREE})")
        seen.add(group)
        at = match.end()
    return re.compile("".join(parts) + re.escape(answer[at:]), re.DOTALL)


def parse(text: str) -> set[Reading]:
    """Every reading of an answer; none for what is no answer of the data files.

    Words that come from a table must stand together in one of its rows.
    """
    readings = set(_rendered().get(text.strip(), ()))
    for intent, asked, pattern in _patterns():
        if match := pattern.fullmatch(text.strip()):
            readings.add(Reading(intent.name, asked, tuple(sorted(match.groupdict().items()))))
    return readings


def source_rows(intent: Intent) -> tuple[Row, ...]:
    """The rows an answer's slots come from: its own, or those of what it follows."""
    if "from" in intent.options:
        return intent.rows
    return tuple(row for name in intent.follows for row in source_rows(intents()[name]))
