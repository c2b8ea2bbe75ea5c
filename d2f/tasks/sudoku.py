"""4x4 sudoku with 2x2 boxes: every puzzle has exactly one solution.

All 288 full grids are listed once, so a solver is a lookup: the set of grids that agree with the
givens is an intersection of bit masks. Knows nothing of wording beyond its one prompt.
"""

from __future__ import annotations

import random
import re
from functools import cache
from itertools import permutations, product

from d2f.tasks.problem import Problem, Task, Turn, ceiling
from d2f.tasks.reading import read_grid

ROW = re.compile(r"^[1-4]{4}$")


@cache
def grids() -> tuple[str, ...]:
    """All 288 solved grids, each a string of 16 digits in reading order."""
    rows = ["".join(row) for row in permutations("1234")]
    bands = [a + b for a, b in product(rows, rows) if not set(a[:2]) & set(b[:2])]
    return tuple(a + b for a, b in product(bands, bands) if is_solved(a + b))


def is_solved(grid: str) -> bool:
    """Whether 16 digits obey the rules in rows, columns and boxes."""
    rows = [grid[4 * i : 4 * i + 4] for i in range(4)]
    columns = [grid[i::4] for i in range(4)]
    boxes = [grid[i : i + 2] + grid[i + 4 : i + 6] for i in (0, 2, 8, 10)]
    return all(set(group) == set("1234") for group in rows + columns + boxes)


@cache
def _agreeing() -> tuple[dict[str, int], ...]:
    """Per cell and digit: the set of grids with that digit there, as the bits of one integer."""
    return tuple(
        {d: sum(1 << i for i, grid in enumerate(grids()) if grid[cell] == d) for d in "1234"}
        for cell in range(16)
    )


def candidates(cells: list[int], grid: str) -> int:
    """The grids equal to `grid` at `cells`, as a bit mask."""
    mask = (1 << len(grids())) - 1
    for cell in cells:
        mask &= _agreeing()[cell][grid[cell]]
    return mask


def _is_unique(cells: list[int], grid: str) -> bool:
    return candidates(cells, grid).bit_count() == 1


def _choose_givens(rng: random.Random, grid: str, count: int) -> list[int]:
    """Removes random cells down to `count` givens, or to fewer removals where none is left."""
    order = rng.sample(range(16), 16)
    kept = list(order)
    for cell in order:
        if len(kept) == count:
            break
        fewer = [other for other in kept if other != cell]
        if _is_unique(fewer, grid):
            kept = fewer
    return kept


def make(rng: random.Random, difficulty: float) -> Problem:
    """A puzzle with 6 to 10 givens; easier ones have up to 12."""
    count = rng.randint(ceiling(10, 6, difficulty), ceiling(12, 10, difficulty))
    grid = rng.choice(grids())
    kept = set(_choose_givens(rng, grid, count))
    puzzle = "".join(digit if cell in kept else "_" for cell, digit in enumerate(grid))
    prompt = "Solve this 4x4 sudoku:\n" + _rows(puzzle)
    return Problem("sudoku-mini", puzzle, (Turn(prompt, _rows(grid)),), (grid,))


def _rows(cells: str) -> str:
    return "\n".join(cells[i : i + 4] for i in range(0, 16, 4))


def judge(text: str, expected: str) -> bool:
    """The first four rows found in the text must be the one solution."""
    rows = [line for line in map(str.strip, text.split("\n")) if ROW.match(line)]
    return "".join(rows[:4]) == expected


TASK = Task(
    name="sudoku-mini",
    title="4x4 sudoku",
    description="Fill a 4x4 grid so that every row, column and 2x2 box holds 1 to 4.",
    make=make,
    judge=judge,
    read=read_grid,
)
