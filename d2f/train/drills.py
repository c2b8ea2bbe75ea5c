"""Arithmetic drills: dense practice of the calculations that worked solutions are made of.

A word problem spends some forty tokens on each calculation, a drill thirteen. Drills are training
data only: no task, no held-out split, and nothing a task's scorer ever sees.
"""

import random


def drill(rng: random.Random) -> tuple[str, str]:
    """A prompt with three to ten calculations, and its worked answer, a line for each."""
    lines = [_calculation(rng) for _ in range(rng.randint(3, 10))]
    asked = ", ".join(line.partition(" =")[0] for line in lines)
    return f"Calculate {asked}.", "\n".join(lines)


def _calculation(rng: random.Random) -> str:
    kind = rng.choices("+-*/", (35, 27, 23, 15))[0]
    if kind in "+-":
        a, b = _terms(rng)
        return f"{a} + {b} = {a + b}" if kind == "+" else f"{a + b} - {b} = {a}"
    a, b = _factors(rng)
    return f"{a} * {b} = {a * b}" if kind == "*" else f"{a * b} / {b} = {a}"


def _terms(rng: random.Random) -> tuple[int, int]:
    """Mostly a number up to 60 and one up to 15; at times more than two digits."""
    a, b = rng.randint(1, 60), rng.randint(1, 15)
    if rng.random() < 0.1:
        a += 10 * rng.randint(4, 40)
    elif rng.random() < 0.1:
        b += rng.randint(1, 40)
    return (a, b) if rng.random() < 0.7 else (b, a)


def _factors(rng: random.Random) -> tuple[int, int]:
    a = rng.randint(2, 9)
    b = rng.randint(2, min(30, 99 // a))
    if rng.random() < 0.2:
        b = rng.randint(2, 12) * 10
    return (a, b) if rng.random() < 0.5 else (b, a)
