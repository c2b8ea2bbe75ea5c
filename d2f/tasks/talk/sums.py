"""Sums in a visitor's own words: word problems, plain calculations and exercises.

Word problems come from ``data/sums.txt``, wordings of calculations from ``data/calc.txt``; every
solution is worked in small steps that stay as they are however the visitor puts it. What the
tasks gsm-mini and math-mini hold out for tests is asked nowhere here.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from d2f.tasks import mathematics
from d2f.tasks.problem import Problem, split_of_key
from d2f.tasks.talk import grammar, noise
from d2f.tasks.talk.conversation import LONGEST, Said, follow, problem
from d2f.tasks.talk.grammar import fill, lines_of, lists
from d2f.tasks.talk.spelling import SMALL

NAME = "talk-sums"
MOST = 99
DRAW = re.compile(r"(\w): (\d+)\.\.(\d+)")
DEFINE = re.compile(r"(\w) = (\w) ([-+*/]) (\w)")
NUMBER = re.compile(r"\{(\w)(!?)\}")
TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
PARTS = {3: "third", 4: "quarter"}
Signs = Mapping[str, Callable[[int, int], int]]
RESULTS: Signs = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if a % b == 0 else 0,
}


@dataclass
class Family:
    """A kind of word problem: numbers to draw, sums to do, solution lines, and phrasings."""

    name: str
    draws: dict[str, tuple[int, int]] = field(default_factory=dict)
    sums: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    phrasings: list[str] = field(default_factory=list)
    hidden: str = ""
    limit: int = MOST
    goes_on: bool = False


class Worked(NamedTuple):
    """A question with its canonical content, solution lines and final answer."""

    prompt: str
    part: str
    key: str
    lines: list[str]
    answer: str
    goes_on: bool = False


@cache
def families() -> tuple[Family, ...]:
    """The kinds of word problems, in the order of the file."""
    found: list[Family] = []
    for line in lines_of("sums.txt"):
        if line.startswith("== "):
            found.append(Family(line[3:]))
        else:
            _take(found[-1], line)
    return tuple(found)


def _take(family: Family, line: str) -> None:
    if draw := DRAW.fullmatch(line):
        family.draws[draw[1]] = (int(draw[2]), int(draw[3]))
    elif define := DEFINE.fullmatch(line):
        family.sums[define[1]] = (define[2], define[3], define[4])
    elif line.startswith("> "):
        family.lines.append(line[2:])
    elif line == "goes: on":
        family.goes_on = True
    elif line.startswith("hide: "):
        family.hidden = line.removeprefix("hide: ")
    elif line.startswith("limit: "):
        family.limit = int(line.removeprefix("limit: "))
    else:
        family.phrasings.append(line)


def _numbers(rng: random.Random, family: Family) -> dict[str, int]:
    """Numbers that keep every result whole and small, and the key out of gsm-mini's tests."""
    while True:
        values = {name: rng.randint(*span) for name, span in family.draws.items()}
        for name, (left, sign, right) in family.sums.items():
            values[name] = RESULTS[sign](values[left], values[right])
            if not 1 <= values[name] <= family.limit:
                break
        else:
            if split_of_key("gsm-mini", _key(family, values)) == "train":
                return values


def _sum(family: Family, values: Mapping[str, int], name: str, gap: str) -> str:
    left, sign, right = family.sums[name]
    return f"{values[left]}{gap}{sign}{gap}{values[right]}"


def _key(family: Family, values: Mapping[str, int]) -> str:
    shown = [name for name in family.sums if name != family.hidden]
    return " ".join(_sum(family, values, name, "") for name in shown)


def _line(line: str, family: Family, values: Mapping[str, int], words: Mapping[str, str]) -> str:
    def number(match: re.Match[str]) -> str:
        name, alone = match.groups()
        if alone or name not in family.sums:
            return str(values[name])
        return f"{_sum(family, values, name, ' ')} = {values[name]}"

    line = re.sub(r" ?\{(\w\w+)\}", lambda m: m[0] if m[1] in words else "", line)
    return fill(NUMBER.sub(number, line), words)


def _word_problem(rng: random.Random, amount: float) -> Worked:
    family = rng.choice(families())
    values = _numbers(rng, family)
    phrasing = rng.choice(family.phrasings)
    words = _chosen(rng, phrasing)
    k = values.get("k", 0)
    words |= {"times": TIMES.get(k, f"{k} times"), "part": PARTS.get(k, "")}
    text = NUMBER.sub(lambda m: str(values[m[1]]), phrasing)
    if rng.random() < 0.15 * amount:
        text = re.sub(r"\b([2-9]|1[0-2])\b", lambda m: SMALL[int(m[1])], text)
    text = re.sub(r"(?<=\. )[a-z]", lambda m: m[0].upper(), fill(text, words))
    lines = [_line(line, family, values, words) for line in family.lines]
    answer = str(values[list(family.sums)[-1]])
    part = f"{family.name}/{phrasing}"
    prompt = noise.dress(text, rng, words.values(), amount)
    return Worked(prompt, part, _key(family, values), lines, answer, family.goes_on)


def _chosen(rng: random.Random, phrasing: str) -> dict[str, str]:
    """A word for each slot of a phrasing that has a list."""
    names = [name for name in sorted(grammar.slots_of(phrasing)) if name in lists()]
    words: dict[str, str] = {}
    for name in names:
        words[name] = rng.choice([w for w in lists()[name] if w not in words.values()])
    return words


# --- calculations, in steps


def plus_steps(a: int, b: int) -> list[str]:
    """From a hundred on the hundreds come first."""
    if b < 100 or b % 100 == 0:
        return [f"{a} + {b} = {a + b}"]
    hundreds, rest = b // 100 * 100, b % 100
    return [f"{a} + {hundreds} = {a + hundreds}", f"{a + hundreds} + {rest} = {a + b}"]


def minus_steps(a: int, b: int) -> list[str]:
    """From a hundred on the hundreds come first."""
    if b < 100 or b % 100 == 0:
        return [f"{a} - {b} = {a - b}"]
    hundreds, rest = b // 100 * 100, b % 100
    return [f"{a} - {hundreds} = {a - hundreds}", f"{a - hundreds} - {rest} = {a - b}"]


def times_steps(a: int, b: int) -> list[str]:
    """Digit by digit of the second factor, each with the tens and ones of the first."""
    if a <= 12 and b <= 12 or a % 10 == 0 and b < 10:
        return [f"{a} * {b} = {a * b}"]
    if b < 10:
        tens, ones = a // 10 * 10, a % 10
        parts = f"{tens} * {b} = {tens * b} and {ones} * {b} = {ones * b}"
        return [parts, f"{tens * b} + {ones * b} = {a * b}"]
    tens, ones = b // 10, b % 10
    steps = [*times_steps(a, tens), f"So {a} * {10 * tens} = {a * 10 * tens}"]
    if not ones:
        return steps
    return [*steps, *times_steps(a, ones), f"{a * 10 * tens} + {a * ones} = {a * b}"]


def over_steps(a: int, b: int) -> tuple[list[str], str]:
    """The steps and the answer, with what remains."""
    q, r = divmod(a, b)
    if not r:
        return [f"{b} * {q} = {a}, so {a} / {b} = {q}"], str(q)
    return [f"{b} * {q} = {b * q}", f"{a} - {b * q} = {r}"], f"{q} remainder {r}"


def percent_steps(p: int, n: int) -> list[str]:
    """By tenths, and by hundredths where these do not fit."""
    if p % 5 or n % 10:
        one = n // 100
        return [f"1% of {n} is {n} / 100 = {one}", f"{p}% of {n} is {p} * {one} = {p * one}"]
    tenth, tens = n // 10, p // 10
    steps = [f"10% of {n} is {n} / 10 = {tenth}"]
    if tens > 1:
        steps.append(f"{10 * tens}% of {n} is {tens} * {tenth} = {tens * tenth}")
    if p % 10:
        steps.append(f"5% of {n} is {tenth} / 2 = {tenth // 2}")
        if tens:
            steps.append(f"{p}% of {n} is {tens * tenth} + {tenth // 2} = {p * n // 100}")
    return steps


class Calculation(NamedTuple):
    """What is asked (words for the slots), its canonical content, and its solution."""

    words: dict[str, str]
    key: str
    lines: list[str]
    answer: str


def _pair(rng: random.Random, sign: str) -> tuple[int, int]:
    if sign == "*":
        a, b = rng.randint(2, 99), rng.randint(2, rng.choice((9, 12, 99)))
        return (a, b) if rng.random() < 0.7 else (min(a, 12), min(b, 12))
    if sign == "/":
        b = rng.randint(2, 12)
        rest = rng.randint(1, b - 1) if rng.random() < 0.2 else 0
        return b * rng.randint(2, 30) + rest, b
    top = rng.choice((20, 99, 99, 999))
    a, b = rng.randint(0, top), rng.randint(0, top)
    return (max(a, b), min(a, b)) if sign == "-" and rng.random() < 0.9 else (a, b)


def _arithmetic(rng: random.Random, sign: str) -> Calculation:
    a, b = _pair(rng, sign)
    words = {"a": str(a), "b": str(b)}
    if sign == "/":
        lines, answer = over_steps(a, b)
    else:
        lines = {"+": plus_steps, "-": minus_steps, "*": times_steps}[sign](a, b)
        answer = str(RESULTS[sign](a, b))
    return Calculation(words, f"{a} {sign} {b}", lines, answer)


MARKS = {"+": "++＋", "-": "--−", "*": "**x×", "/": "//÷:"}


def _expression(rng: random.Random) -> Calculation:
    """A sum in signs, tight or loose, or an expression of several signs."""
    if rng.random() < 0.25:
        makers = (mathematics._brackets, mathematics._precedence, mathematics._power)
        return _exercise(rng, rng.choice(makers), "e")
    sign = rng.choice("++--**/")
    made = _arithmetic(rng, sign)
    shown = rng.choice(MARKS[sign])
    gap = rng.choice(("", "", " "))
    return made._replace(words={"e": f"{made.words['a']}{gap}{shown}{gap}{made.words['b']}"})


Maker = Callable[[random.Random, float], mathematics.Exercise]


def _exercise(rng: random.Random, maker: Maker, slot: str) -> Calculation:
    exercise = maker(rng, 1.0)
    gap = rng.random() < 0.5
    shown = exercise.key if gap else exercise.key.replace(" ", "")
    return Calculation({slot: shown}, exercise.key, exercise.lines, exercise.answer)


def _equation(rng: random.Random) -> Calculation:
    makers = (
        mathematics._linear,
        mathematics._linear_quotient,
        mathematics._linear_bracket,
        mathematics._linear_both_sides,
    )
    made = _simple_equation(rng) if rng.random() < 0.4 else _exercise(rng, rng.choice(makers), "eq")
    letter = rng.choice(("x", "x", "x", "y", "n", "a"))

    def in_letter(text: str) -> str:
        return re.sub(r"(?<![a-z])x(?![a-z])", letter, text)

    words = {"eq": in_letter(made.words["eq"]), "x": letter}
    return made._replace(words=words, lines=[in_letter(line) for line in made.lines])


def _simple_equation(rng: random.Random) -> Calculation:
    a, b = rng.randint(2, 40), rng.randint(2, 12)
    small = rng.randint(2, 12)
    equation, line, x = rng.choice(
        (
            (f"x + {b} = {a + b}", f"Subtract {b} from both sides: x = {a + b} - {b} = {a}.", a),
            (f"x - {b} = {a}", f"Add {b} to both sides: x = {a} + {b} = {a + b}.", a + b),
            (
                f"{b}x = {b * small}",
                f"Divide both sides by {b}: x = {b * small} / {b} = {small}.",
                small,
            ),
            (
                f"x / {b} = {small}",
                f"Multiply both sides by {b}: x = {small} * {b} = {small * b}.",
                small * b,
            ),
        )
    )
    shown = equation if rng.random() < 0.5 else equation.replace(" ", "")
    return Calculation({"eq": shown}, equation, [line], str(x))


def _percent(rng: random.Random) -> Calculation:
    if rng.random() < 0.8:
        p = 5 * rng.randint(1, 19)
        n = (20 if p % 10 else 10) * rng.randint(1, 15)
    else:
        p, n = rng.randint(1, 9), 100 * rng.randint(1, 9)
    lines = percent_steps(p, n)
    return Calculation({"p": str(p), "n": str(n)}, f"{p}% of {n}", lines, str(p * n // 100))


def _named(maker: Maker, pattern: str) -> Callable[[random.Random], Calculation]:
    """An exercise of math-mini whose words are read from its key."""

    def make(rng: random.Random) -> Calculation:
        while True:
            exercise = maker(rng, 1.0)
            if match := re.fullmatch(pattern, exercise.key):
                words = {name: value for name, value in match.groupdict().items() if value}
                return Calculation(words, exercise.key, exercise.lines, exercise.answer)

    return make


def _squared(rng: random.Random) -> Calculation:
    a = rng.randint(2, 40)
    return Calculation({"a": str(a)}, f"{a} * {a}", times_steps(a, a), str(a * a))


def _square_more(rng: random.Random) -> Calculation:
    a, sign = rng.randint(2, 12), rng.choice("+-")
    b = rng.randint(1, min(20, a * a - 1))
    result = RESULTS[sign](a * a, b)
    lines = [f"{a} * {a} = {a * a}", f"{a * a} {sign} {b} = {result}"]
    words = {"a": str(a), "b": str(b), "word": "plus" if sign == "+" else "minus"}
    return Calculation(words, f"{a}^2 {sign} {b}", lines, str(result))


def _half(rng: random.Random) -> Calculation:
    a = rng.randint(1, 250)
    return Calculation({"a": str(2 * a)}, f"{2 * a} / 2", [f"{2 * a} / 2 = {a}"], str(a))


def _double(rng: random.Random) -> Calculation:
    a = rng.randint(2, 250)
    return Calculation({"a": str(a)}, f"2 * {a}", [f"{a} + {a} = {2 * a}"], str(2 * a))


def _rectangle(rng: random.Random, around: bool) -> Calculation:
    a, b = rng.randint(3, 25 if around else 12), rng.randint(2, 9)
    unit = rng.choice(("meters", "centimeters", "m", "cm"))
    words = {"a": str(a), "b": str(b), "unit": unit}
    if around:
        lines = [f"{a} + {b} = {a + b}", f"2 * {a + b} = {2 * (a + b)}"]
        return Calculation(words, f"perimeter {a} {b}", lines, str(2 * (a + b)))
    return Calculation(words, f"area {a} {b}", [f"{a} * {b} = {a * b}"], str(a * b))


def _convert(rng: random.Random) -> Calculation:
    big, small, factor = rng.choice(mathematics.CONVERSIONS)
    k = rng.randint(2, 12)
    bigs, smalls = (mathematics._many(unit, 2).split()[1] for unit in (big, small))
    lines = [f"One {big} has {factor} {smalls}", f"{k} * {factor} = {k * factor}"]
    words = {"k": str(k), "big": bigs, "small": smalls}
    return Calculation(words, f"{k} {big}", lines, str(k * factor))


CALCULATIONS: dict[str, Callable[[random.Random], Calculation]] = {
    "calc.expression": _expression,
    "calc.plus": lambda rng: _arithmetic(rng, "+"),
    "calc.minus": lambda rng: _arithmetic(rng, "-"),
    "calc.times": lambda rng: _arithmetic(rng, "*"),
    "calc.over": lambda rng: _arithmetic(rng, "/"),
    "calc.percent": _percent,
    "calc.equation": _equation,
    "calc.simplify": _named(mathematics._simplify, r"reduce (?P<f>.+)"),
    "calc.gcd": _named(mathematics._euclid, r"gcd (?P<a>\d+) (?P<b>\d+)"),
    "calc.squared": _squared,
    "calc.square.more": _square_more,
    "calc.half": _half,
    "calc.double": _double,
    "calc.average": _named(mathematics._average, r"average (?P<list>.+)"),
    "calc.remainder": _named(mathematics._remainder, r"(?P<a>\d+) mod (?P<b>\d+)"),
    "calc.next": _named(mathematics._sequence, r"next (?P<list>.+)"),
    "calc.area": lambda rng: _rectangle(rng, around=False),
    "calc.perimeter": lambda rng: _rectangle(rng, around=True),
    "calc.convert": _convert,
}


def _calculation(rng: random.Random, amount: float) -> Worked:
    names = list(CALCULATIONS)
    weights = [grammar.intents()[name].weight for name in names]
    name = rng.choices(names, weights)[0]
    made = CALCULATIONS[name](rng)
    while split_of_key("math-mini", made.key) == "test":
        made = CALCULATIONS[name](rng)
    phrasing = rng.choice(grammar.intents()[name].phrasings)
    text = fill(rng.choice(grammar.owned()[name, phrasing]), made.words)
    prompt = noise.dress(text, rng, made.words.values(), amount)
    goes_on = made.answer.isdigit() and int(made.answer) <= MOST and name != "calc.equation"
    return Worked(prompt, f"{name}/{phrasing}", made.key, made.lines, made.answer, goes_on)


def _said(worked: Worked) -> Said:
    answer = "\n".join([*worked.lines, f"#### {worked.answer}"])
    expected = json.dumps({"sum": worked.answer, "goes_on": worked.goes_on})
    return Said(worked.prompt, answer, expected, (worked.part, worked.key))


def opening(rng: random.Random, amount: float) -> Said:
    """A word problem, or half as often a plain calculation."""
    return _said((_word_problem if rng.random() < 0.66 else _calculation)(rng, amount))


def following(rng: random.Random, last: Said, amount: float) -> Said | None:
    """Some more, some fewer or a multiple of the last result; None where it does not fit."""
    told = json.loads(last.expected)
    if not told.get("goes_on"):
        return None
    value = int(told["sum"])
    kind, sign = rng.choice((("more", "+"), ("less", "-"), ("times", "*")))
    n = rng.randint(2, 9 if sign == "*" else 15)
    result = RESULTS[sign](value, n)
    if not 1 <= result <= MOST:
        return None
    name = f"calc.now.{kind}"
    phrasing = rng.choice(grammar.intents()[name].phrasings)
    words = {"n": str(n), **_chosen(rng, phrasing)}
    text = fill(rng.choice(grammar.owned()[name, phrasing]), words)
    prompt = noise.dress(text, rng, words.values(), amount)
    lines = [f"Before: {value}.", f"Now: {value} {sign} {n} = {result}."]
    key = f"now {value}{sign}{n}"
    return _said(Worked(prompt, f"{name}/{phrasing}", key, lines, str(result), True))


def make(rng: random.Random, difficulty: float) -> Problem:
    """A sum, and at times what follows it."""
    said = [opening(rng, difficulty)]
    while len(said) < LONGEST and rng.random() < 0.25:
        on = following(rng, said[-1], difficulty) if said[-1].intent is None else None
        said.append(on or follow(rng, [said[-1]], difficulty))
    return problem(NAME, said)
