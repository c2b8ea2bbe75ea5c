"""Numbers in words."""

from __future__ import annotations

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n: int) -> str:
    """A whole number from 0 to 999,999 in English words."""
    if n < 20:
        return SMALL[n]
    if n < 100:
        tens = TENS[n // 10 - 2]
        return f"{tens}-{SMALL[n % 10]}" if n % 10 else tens
    if n < 1000:
        tail = f" and {in_words(n % 100)}" if n % 100 else ""
        return f"{SMALL[n // 100]} hundred{tail}"
    rest = n % 1000
    joint = " " if rest >= 100 else " and "
    return f"{in_words(n // 1000)} thousand" + (joint + in_words(rest) if rest else "")
