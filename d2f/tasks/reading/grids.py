"""A solved 4x4 grid in any layout: bare or spaced rows, tables, boxes, lists, or one line.

The last grid with all its sixteen digits counts. A row that is mentioned alone makes none, nor do
columns and boxes that a text lists to prove itself.
"""

import re
from collections.abc import Iterator
from itertools import groupby

from d2f.tasks.reading.words import answer_of

_DIGITS = {0xFF10 + n: str(n) for n in range(10)} | {0x245F + n: str(n) for n in range(1, 5)}
_NEW_LINE = re.compile(r"</tr>|<br */?>|\\\\|(?<=\d)[,;/.]? *(?=row *\d)", re.IGNORECASE)
_MARKUP = re.compile(r"</?[a-z][^<>\n]{0,80}>|\\[a-z]+(?:\{[a-z*]*\})?|\u20e3", re.IGNORECASE)
_REMARK = re.compile(r"(?<=\d) *(?:<-|←|#|//|\(\D[^:]*$).*$")
_NO_ROW = re.compile(r"\b(?:col|column|box|block|quadrant|square|region)(?:e?s)?\b", re.IGNORECASE)
_LABEL = re.compile(
    r"\W*(?:[^\W\d][^\d:=→|\n]{0,40}(?:\d(?:st|nd|rd|th)?\b)?[^\d:=→|\n]{0,20}?"
    r"(?:[:=|→]|->|\bis\b|- )|\(?\d *(?:[:)→]|->|\.(?= )))",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[\s,;|&\[\](){}'\"`*.:/\\$+=¦\u2500-\u257f-]|\band\b", re.IGNORECASE)
_CELLS = re.compile(r"[0-9_?x·□⬜]+", re.IGNORECASE)
MAX_LINE = 400  # characters of one that may hold rows
_EMPTY, _PROSE = "", "prose"


def read_grid(text: str, expected: str) -> bool | None:
    """Whether the last full grid of the text is the expected one; None: there is none."""
    text = answer_of(text).translate(_DIGITS)
    grids = [grid for rows in _blocks(text) for grid in _grids(rows, expected)]
    if not grids:
        # Numbers on lines of their own, as in JSON.
        digits = re.sub(r"\D", "", text)
        grids = [digits] if re.fullmatch("[1-4]{16}", digits) else []
    if not grids:
        return None
    # Behind the right one, another may be an example, or what went wrong before.
    return grids[-1] == expected or (None if expected in grids else False)


def _blocks(text: str) -> Iterator[list[str]]:
    """Rows that stand together; empty lines divide only what has four rows without them."""
    rows = map(_row, _NEW_LINE.sub("\n", text).split("\n"))
    for prose, run in groupby(rows, key=_PROSE.__eq__):
        if prose:
            continue
        parts = [list(part) for full, part in groupby(run, key=bool) if full]
        together = [row for part in parts for row in part]
        yield from parts if any(len(part) % 4 == 0 for part in parts) else [together]


def _row(line: str) -> str:
    """The cells of a line: 4, or all 16, or as many as are filled."""
    if len(line) > MAX_LINE:
        return _PROSE
    line = _REMARK.sub("", _MARKUP.sub("", line))
    if re.fullmatch(r"[^\w?]*", line):
        return _EMPTY
    if _NO_ROW.search(line):
        return _PROSE
    label = _LABEL.match(line)
    for cells in (line[label.end() :] if label else "", line):
        cells = _BETWEEN.sub("", cells)
        if len(cells) >= 4 and _CELLS.fullmatch(cells):
            return cells
    return cells if _CELLS.fullmatch(cells) else _PROSE


def _grids(rows: list[str], expected: str) -> Iterator[str]:
    """The full grids of a block, read from its end."""
    cells = "".join(rows)
    if len(rows) % 4 == 1 and rows[0] in ("1234", *rows[1:2]):
        rows = rows[1:]  # a table's header, or the first row once more
    numbered = [row[1:] for row, n in zip(rows, "1234", strict=False) if row[0] == n]
    if all(len(row) == 5 for row in rows) and len(numbered) == len(rows) == 4:
        rows = numbered
    cells = "".join(rows)
    if len(cells) % 16 == 0 and all(len(row) in (4, 16) for row in rows):
        grids = [cells[i : i + 16] for i in range(0, len(cells), 16)]
        yield from (grid for grid in grids if re.fullmatch("[1-4]{16}", grid))
