"""Answers in any words, of models that never learned the tasks' own form.

A reader says right, wrong, or nothing: True, False, None. It says wrong only where a final answer
is plainly stated and differs, and nothing wherever it is not sure. Benchmarks do not read: their
judges hold every answer to the form of its task.
"""

from d2f.tasks.reading.code import read_code
from d2f.tasks.reading.grids import read_grid
from d2f.tasks.reading.numbers import read_number

__all__ = ["read_code", "read_grid", "read_number"]
