"""Short exercises in algebra and arithmetic with worked steps, after MATH.

Each family draws its numbers, writes the exercise in one of a few phrasings and solves it in one
fixed style. Knows nothing of splits, tokenizers or models.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import gcd
from typing import NamedTuple

from d2f.tasks.problem import Problem, Task, Turn, ceiling, same_final_answer
from d2f.tasks.reading import read_number


class Exercise(NamedTuple):
    """One exercise: canonical content, wording, solution lines and final answer."""

    key: str
    prompt: str
    lines: list[str]
    answer: str


def _factors(rng: random.Random, d: float) -> tuple[int, int]:
    """A digit and a number from 3 to 15, with a product of at most 99."""
    a = rng.randint(2, ceiling(4, 9, d))
    return a, rng.randint(3, min(99 // a, ceiling(9, 15, d)))


def _linear(rng: random.Random, d: float) -> Exercise:
    a, x = _factors(rng, d)
    b = rng.randint(1, ceiling(9, 15, d))
    if rng.random() < 0.5 or a * x <= b:
        equation, c = f"{a}x + {b} = {a * x + b}", a * x + b
        first = f"Subtract {b} from both sides: {a}x = {c} - {b} = {a * x}."
    else:
        equation, c = f"{a}x - {b} = {a * x - b}", a * x - b
        first = f"Add {b} to both sides: {a}x = {c} + {b} = {a * x}."
    second = f"Divide both sides by {a}: x = {a * x} / {a} = {x}."
    return Exercise(equation, _equation(rng, equation), [first, second], str(x))


def _equation(rng: random.Random, equation: str) -> str:
    phrasing = rng.choice(("Solve {} for x.", "Solve for x: {}", "What is x if {}?"))
    return phrasing.format(equation)


def _linear_quotient(rng: random.Random, d: float) -> Exercise:
    a, q = _factors(rng, d)
    b = rng.randint(1, ceiling(9, 15, d))
    if rng.random() < 0.5 or q <= b:
        equation = f"x / {a} + {b} = {q + b}"
        first = f"Subtract {b} from both sides: x / {a} = {q + b} - {b} = {q}."
    else:
        equation = f"x / {a} - {b} = {q - b}"
        first = f"Add {b} to both sides: x / {a} = {q - b} + {b} = {q}."
    second = f"Multiply both sides by {a}: x = {q} * {a} = {q * a}."
    return Exercise(equation, _equation(rng, equation), [first, second], str(q * a))


def _linear_bracket(rng: random.Random, d: float) -> Exercise:
    a, s = _factors(rng, d)
    if rng.random() < 0.5:
        b = rng.randint(1, s - 1)
        equation, x = f"{a}(x + {b}) = {a * s}", s - b
        second = f"Subtract {b} from both sides: x = {s} - {b} = {x}."
    else:
        b = rng.randint(1, ceiling(9, 15, d))
        equation, x = f"{a}(x - {b}) = {a * s}", s + b
        second = f"Add {b} to both sides: x = {s} + {b} = {x}."
    sign = "+" if "+" in equation else "-"
    first = f"Divide both sides by {a}: x {sign} {b} = {a * s} / {a} = {s}."
    return Exercise(equation, _equation(rng, equation), [first, second], str(x))


def _linear_both_sides(rng: random.Random, d: float) -> Exercise:
    c, e = rng.randint(2, 5), rng.randint(2, ceiling(3, 5, d))
    a, x = c + e, rng.randint(2, ceiling(6, 9, d))
    b = rng.randint(1, ceiling(9, 15, d))
    right = e * x + b
    equation = f"{a}x + {b} = {c}x + {right}"
    lines = [
        f"Subtract {c}x from both sides: {a}x - {c}x = {e}x, so {e}x + {b} = {right}.",
        f"Subtract {b} from both sides: {e}x = {right} - {b} = {e * x}.",
        f"Divide both sides by {e}: x = {e * x} / {e} = {x}.",
    ]
    return Exercise(equation, _equation(rng, equation), lines, str(x))


def _fraction(n: int, m: int) -> str:
    return str(n) if m == 1 else f"{n}/{m}"


def _fraction_sum(rng: random.Random, d: float) -> Exercise:
    top = ceiling(4, 6, d)
    b, e = rng.randint(2, top), rng.randint(2, top)
    a, c = rng.randint(1, b - 1), rng.randint(1, e - 1)
    sign = "+" if rng.random() < 0.5 or a * e <= c * b else "-"
    m = b * e // gcd(b, e)
    left, right = a * m // b, c * m // e
    n = left + right if sign == "+" else left - right
    divisor = gcd(n, m)
    answer = _fraction(n // divisor, m // divisor)
    lines = [
        f"The common denominator of {b} and {e} is {m}.",
        f"{m} / {b} = {m // b} and {a} * {m // b} = {left}, so {a}/{b} = {left}/{m}.",
        f"{m} / {e} = {m // e} and {c} * {m // e} = {right}, so {c}/{e} = {right}/{m}.",
        f"{left} {sign} {right} = {n}, so the result is {n}/{m}.",
        f"Divide both parts by {divisor}: {n}/{m} = {answer}."
        if divisor > 1
        else f"{n}/{m} is in lowest terms.",
    ]
    expression = f"{a}/{b} {sign} {c}/{e}"
    return Exercise(expression, _compute(rng, expression), lines, answer)


def _compute(rng: random.Random, expression: str) -> str:
    return rng.choice(("Compute {}.", "What is {}?", "Calculate {}.")).format(expression)


def _simplify(rng: random.Random, d: float) -> Exercise:
    m = rng.randint(2, ceiling(8, 10, d))
    n = rng.choice([k for k in range(1, m) if gcd(k, m) == 1])
    k = rng.randint(2, ceiling(4, 9, d))
    before = f"{n * k}/{m * k}"
    lines = [
        f"The greatest common divisor of {n * k} and {m * k} is {k}.",
        f"{n * k} / {k} = {n} and {m * k} / {k} = {m}.",
        f"So {before} = {n}/{m}.",
    ]
    prompts = ("Simplify the fraction {}.", "Write {} in lowest terms.", "Reduce the fraction {}.")
    return Exercise(f"reduce {before}", rng.choice(prompts).format(before), lines, f"{n}/{m}")


def _euclid(rng: random.Random, d: float) -> Exercise:
    """By subtraction, as Euclid himself did it."""
    k, m = rng.randint(1, ceiling(6, 12, d)), rng.randint(1, ceiling(4, 6, d))
    n = rng.randint(m + 1, max(m + 1, min(3 * m + 1, 60 // k)))
    a, b = k * n, k * m
    lines, x, y = [], a, b
    while x != y:
        lines.append(f"{x} - {y} = {x - y}")
        x, y = max(y, x - y), min(y, x - y)
    lines.append(f"Both numbers are {x} now.")
    prompts = (
        "Find the greatest common divisor of {} and {}.",
        "What is the greatest common divisor of {} and {}?",
        "Use Euclid's algorithm on {} and {}.",
    )
    return Exercise(f"gcd {a} {b}", rng.choice(prompts).format(a, b), lines, str(x))


def _power(rng: random.Random, d: float) -> Exercise:
    top = ceiling(99, 256, d)
    base = rng.randint(2, 9)
    fits = [k for k in range(2, 10) if base**k <= top]
    exponent = rng.choice(fits)
    lines, value = [], base
    for k in range(2, exponent + 1):
        lines.append(f"{base}^{k} = {value} * {base} = {value * base}")
        value *= base
    n = rng.randint(1, min(ceiling(9, 15, d), value - 1))
    sign = rng.choice("+-")
    answer = value + n if sign == "+" else value - n
    lines.append(f"{value} {sign} {n} = {answer}")
    expression = f"{base}^{exponent} {sign} {n}"
    return Exercise(expression, _compute(rng, expression), lines, str(answer))


CONVERSIONS = (
    ("hour", "minute", 60),
    ("minute", "second", 60),
    ("meter", "centimeter", 100),
    ("kilogram", "gram", 1000),
    ("kilometer", "meter", 1000),
    ("dollar", "cent", 100),
    ("day", "hour", 24),
    ("week", "day", 7),
    ("foot", "inch", 12),
)
PLURALS = {"foot": "feet", "inch": "inches"}


def _many(unit: str, n: int) -> str:
    return f"{n} {unit if n == 1 else PLURALS.get(unit, unit + 's')}"


def _convert(rng: random.Random, d: float) -> Exercise:
    big, small, factor = rng.choice(CONVERSIONS)
    k, n = rng.randint(2, 9), rng.randint(1, min(factor - 1, ceiling(9, 20, d)))
    if factor == 1000:
        n = 10 * rng.randint(1, ceiling(20, 99, d))
    total = k * factor
    lines = [
        f"{_many(big, 1).capitalize()} is {_many(small, factor)}.".replace("Foot", "foot"),
        f"{_many(big, k)} are {k} * {factor} = {_many(small, total)}.",
        f"{total} + {n} = {_many(small, total + n)}.",
    ]
    unit = _many(small, 2).split()[1]
    prompts = (
        "Convert {} and {} to {}.",
        "How many {2} are {0} and {1}?",
    )
    prompt = rng.choice(prompts).format(_many(big, k), _many(small, n), unit)
    return Exercise(f"{k} {big} {n} {small}", prompt, lines, str(total + n))


def _percent(rng: random.Random, d: float) -> Exercise:
    tens = rng.randint(1, 9)
    n = 10 * rng.randint(2, ceiling(5, 9, d))
    tenth, part = n // 10, n // 10 * tens
    p = 10 * tens
    lines = [
        f"10% of {n} is {n} / 10 = {tenth}.",
        f"{p}% of {n} is {tens} * {tenth} = {part}.",
    ]
    kind = rng.choice(("of", "off", "up"))
    if kind == "of":
        prompt = rng.choice(("What is {}% of {}?", "Find {}% of {}.")).format(p, n)
        return Exercise(f"{p}% of {n}", prompt, lines, str(part))
    thing = rng.choice(("coat", "bike", "phone", "chair", "camera"))
    if kind == "off":
        prompt = f"A {thing} costs {n} dollars and is {p}% off. What is the new price?"
        lines.append(f"The new price is {n} - {part} = {n - part} dollars.")
        return Exercise(f"{n} less {p}%", prompt, lines, str(n - part))
    prompt = f"The price of a {thing} was {n} dollars and rises by {p}%. What is the new price?"
    lines.append(f"The new price is {n} + {part} = {n + part} dollars.")
    return Exercise(f"{n} more {p}%", prompt, lines, str(n + part))


def _brackets(rng: random.Random, d: float) -> Exercise:
    k, s = _factors(rng, d)
    plus = rng.random() < 0.5
    b = rng.randint(1, s - 1) if plus else rng.randint(1, ceiling(9, 15, d))
    a = s - b if plus else s + b
    inner = f"{a} {'+' if plus else '-'} {b}"
    shape = rng.choice(("{k} * ({inner})", "({inner}) * {k}"))
    expression = shape.format(k=k, inner=inner)
    outer = f"{k} * {s}" if shape.startswith("{k}") else f"{s} * {k}"
    lines = [f"First the parentheses: {inner} = {s}.", f"Then multiply: {outer} = {k * s}."]
    return Exercise(expression, _compute(rng, expression), lines, str(k * s))


def _precedence(rng: random.Random, d: float) -> Exercise:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    product = a * b
    kind = rng.randrange(3)
    if kind == 0:
        c = rng.randint(product, product + ceiling(9, 15, d))
        sign = rng.choice("+-")
        expression, rest = f"{c} {sign} {a} * {b}", f"{c} {sign} {product}"
        answer = c + product if sign == "+" else c - product
        lines = [f"First multiply: {a} * {b} = {product}."]
    elif kind == 1:
        c = rng.randint(1, min(product, ceiling(9, 15, d)))
        sign = rng.choice("+-")
        expression, rest = f"{a} * {b} {sign} {c}", f"{product} {sign} {c}"
        answer = product + c if sign == "+" else product - c
        lines = [f"First multiply: {a} * {b} = {product}."]
    else:
        c, e = rng.randint(2, 5), rng.randint(2, 5)
        expression, rest = f"{a} * {b} + {c} * {e}", f"{product} + {c * e}"
        answer = product + c * e
        lines = [f"First multiply: {a} * {b} = {product} and {c} * {e} = {c * e}."]
    word = "add" if "+" in rest else "subtract"
    lines.append(f"Then {word}: {rest} = {answer}.")
    return Exercise(expression, _compute(rng, expression), lines, str(answer))


def _rectangle(rng: random.Random, d: float) -> Exercise:
    unit = rng.choice(("centimeters", "meters"))
    area = rng.random() < 0.5
    a = rng.randint(3, ceiling(9, 12 if area else 25, d))
    b = rng.randint(2, ceiling(9, 9 if area else 15, d))
    side = f"A rectangle is {a} {unit} long and {b} {unit} wide."
    if area:
        prompt = rng.choice((f"{side} What is its area?", f"{side} Find the area."))
        lines = [
            "The area is the length times the width.",
            f"{a} * {b} = {a * b}, so the area is {a * b} square {unit}.",
        ]
        return Exercise(f"area {a} {b}", prompt, lines, str(a * b))
    prompt = rng.choice((f"{side} What is its perimeter?", f"{side} Find the perimeter."))
    lines = [
        "The perimeter is twice the sum of the length and the width.",
        f"{a} + {b} = {a + b} and 2 * {a + b} = {2 * (a + b)}, "
        f"so the perimeter is {2 * (a + b)} {unit}.",
    ]
    return Exercise(f"perimeter {a} {b}", prompt, lines, str(2 * (a + b)))


def _average(rng: random.Random, d: float) -> Exercise:
    count = rng.randint(2, ceiling(3, 4, d))
    mean = rng.randint(3, ceiling(9, 12, d))
    numbers = [rng.randint(1, 2 * mean - 1) for _ in range(count - 1)]
    last = count * mean - sum(numbers)
    if last < 1 or last > 99:
        numbers, last = [mean - 1] * (count - 1), mean + count - 1
    numbers.append(last)
    lines, total = [], numbers[0]
    for n in numbers[1:]:
        lines.append(f"{total} + {n} = {total + n}")
        total += n
    lines.append(f"There are {count} numbers, so the average is {total} / {count} = {mean}.")
    listed = ", ".join(map(str, numbers[:-1])) + f" and {last}"
    prompts = ("Find the average of {}.", "What is the average of {}?")
    return Exercise(f"average {listed}", rng.choice(prompts).format(listed), lines, str(mean))


def _sequence(rng: random.Random, d: float) -> Exercise:
    start, gap = rng.randint(1, ceiling(12, 30, d)), rng.randint(2, ceiling(5, 12, d))
    terms = [start + i * gap for i in range(4)]
    if rng.random() < 0.4:
        terms.reverse()
        gap = -gap
    listed = ", ".join(map(str, terms))
    following, sign = terms[-1] + gap, "+" if gap > 0 else "-"
    if following < 0:
        terms = [term - following for term in terms]
        listed, following = ", ".join(map(str, terms)), 0
    prompts = ("What number comes next: {}?", "Continue the sequence {} by one number.")
    high, low = max(terms[:2]), min(terms[:2])
    lines = [
        f"{high} - {low} = {abs(gap)}, so the step is {sign} {abs(gap)}.",
        f"The next number is {terms[-1]} {sign} {abs(gap)} = {following}.",
    ]
    return Exercise(f"next {listed}", rng.choice(prompts).format(listed), lines, str(following))


def _remainder(rng: random.Random, d: float) -> Exercise:
    b = rng.randint(3, 9)
    a = rng.randint(b + 1, ceiling(30, 50, d))
    q, r = divmod(a, b)
    prompts = ("What is the remainder of {} divided by {}?", "Divide {} by {}. What is left over?")
    lines = [
        f"{b} goes into {a} {q} times, because {q} * {b} = {q * b}.",
        f"The remainder is {a} - {q * b} = {r}.",
    ]
    return Exercise(f"{a} mod {b}", rng.choice(prompts).format(a, b), lines, str(r))


def _product(rng: random.Random, d: float) -> Exercise:
    a, b = rng.randint(11, ceiling(19, 39, d)), rng.randint(3, 9)
    a += a % 10 == 0
    tens, ones = a // 10 * 10, a % 10
    lines = [
        f"Split {a} into {tens} + {ones}.",
        f"{tens} * {b} = {tens * b} and {ones} * {b} = {ones * b}.",
        f"{tens * b} + {ones * b} = {a * b}.",
    ]
    return Exercise(f"{a} * {b}", _compute(rng, f"{a} * {b}"), lines, str(a * b))


FAMILIES: tuple[Callable[[random.Random, float], Exercise], ...] = (
    _linear,
    _linear_quotient,
    _linear_bracket,
    _linear_both_sides,
    _fraction_sum,
    _simplify,
    _euclid,
    _power,
    _convert,
    _percent,
    _brackets,
    _precedence,
    _rectangle,
    _average,
    _sequence,
    _remainder,
    _product,
)
ODDS = (10, 8, 8, 8, 9, 4, 5, 6, 6, 6, 6, 8, 5, 6, 6, 8, 8)


def _follow_up(rng: random.Random, d: float, value: int) -> tuple[Turn, str]:
    kind = rng.choice(("multiply", "add", "subtract") if value <= 12 else ("add", "subtract"))
    if kind == "subtract" and value < 2:
        kind = "add"
    if kind == "multiply":
        n = rng.randint(2, 9)
        prompt, result = f"Now multiply the answer by {n}.", value * n
        line = f"{value} * {n} = {result}"
    elif kind == "add":
        n = rng.randint(1, ceiling(9, 15, d))
        prompt, result = f"Now add {n} to the answer.", value + n
        line = f"{value} + {n} = {result}"
    else:
        n = rng.randint(1, min(value - 1, ceiling(9, 15, d)))
        prompt, result = f"Now subtract {n} from the answer.", value - n
        line = f"{value} - {n} = {result}"
    lines = f"The answer was {value}.\n{line}\n#### {result}"
    return Turn(prompt, lines), str(result)


def make(rng: random.Random, difficulty: float) -> Problem:
    """An exercise of one of the families; about a fifth of them with a follow-up."""
    exercise = rng.choices(FAMILIES, ODDS)[0](rng, difficulty)
    answer = "\n".join([*exercise.lines, f"#### {exercise.answer}"])
    turns, expected = [Turn(exercise.prompt, answer)], [exercise.answer]
    if rng.random() < 0.25 and "/" not in exercise.answer:
        turn, result = _follow_up(rng, difficulty, int(exercise.answer))
        turns.append(turn)
        expected.append(result)
    return Problem("math-mini", exercise.key, tuple(turns), tuple(expected))


TASK = Task(
    name="math-mini",
    title="Algebra and arithmetic",
    description="Equations, fractions, percent, units and more, with worked steps.",
    make=make,
    judge=same_final_answer,
    read=read_number,
)
