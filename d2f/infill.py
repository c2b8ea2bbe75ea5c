"""An answer given as text with gaps, as held tokens.

A gap is two or more underscores in a row, one a token: ``The fox ____ over the __ dog.`` Tokens of
words begin with their space, so a space before a gap is part of it.
"""

import re

from d2f.errors import InvalidInput
from d2f.tokenizer import Tokenizer

GAP = re.compile("__+")


def infill(tokenizer: Tokenizer, template: str) -> tuple[dict[int, int], int]:
    """Token ids by place in the answer, and the answer's length in tokens.

    Where the text ends, the answer does: a text that does not end in a gap is followed by the
    tokenizer's end token, which is held as well.

    Raises:
        InvalidInput: there is no gap, or the text holds a special token.
    """
    hold: dict[int, int] = {}
    place = begin = 0
    for gap in GAP.finditer(template):
        place = _put(
            hold, place, tokenizer.encode_within(template[begin : gap.start()].removesuffix(" "))
        )
        place += gap.end() - gap.start()
        begin = gap.end()
    if not begin:
        raise InvalidInput("mark the gaps with underscores, two or more in a row, one a token")
    if template[begin:]:
        rest = tokenizer.encode_within(template[begin:])
        place = _put(hold, place, [*rest, tokenizer.end_id])
    return hold, place


def _put(hold: dict[int, int], place: int, ids: list[int]) -> int:
    """Hold ids from a place on; returns the place behind them."""
    hold.update(enumerate(ids, place))
    return place + len(ids)
