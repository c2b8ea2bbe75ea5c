"""The text of an answer in the making, for whoever shows it as it is decoded.

Knows nothing of models, decoders or screens.
"""

import codecs
from collections.abc import Mapping

from d2f.events import StepEvent, TraceHeader
from d2f.tokenizer import Tokenizer


class ReadableText:
    """The readable part of an answer in the making: it only grows, by whole characters.

    Decoders commit in any order; readable is what lies before the first gap and the first stop.
    """

    def __init__(self, tokenizer: Tokenizer, header: TraceHeader) -> None:
        self._tokenizer = tokenizer
        self._canvas = header.given
        self._next = len(header.prompt_ids)
        self._ids: list[int] = []
        self._shown = ""

    def add(self, event: StepEvent) -> str:
        """What became readable by ``event``."""
        self._canvas.update((c.position, c.token_id) for c in event.commits)
        while (token := self._canvas.get(self._next)) is not None:
            if token in self._tokenizer.stop_ids:
                break
            self._ids.append(token)
            self._next += 1
        # A character cut in the middle of its bytes decodes as U+FFFD: wait for the rest.
        return self._grow(self._tokenizer.decode(self._ids).rstrip("\ufffd"))

    def rest(self, text: str) -> str:
        """What is still unsaid of the final ``text``."""
        return self._grow(text)

    def _grow(self, text: str) -> str:
        new = text[len(self._shown) :]
        self._shown += new
        return new


class TokenTexts:
    """The text of every token in its place: joined, those of an answer are the answer.

    A token may be only part of a character. The last of the parts shows the character, and those
    before it nothing; until it is whole, all that there is shows as U+FFFD. (A tokenizer of single
    bytes reads whole characters as U+FFFD as well where they stand beside a damaged one.)
    """

    def __init__(self, tokenizer: Tokenizer, prompt_length: int) -> None:
        self._tokenizer = tokenizer
        self._start = prompt_length
        self._parts: dict[int, bytes] = {}  # by position
        self._texts: dict[int, str] = {}

    def add(self, event: StepEvent) -> dict[int, str]:
        """Texts by position: of what ``event`` commits, and of what reads differently by it."""
        return self.place({commit.position: commit.token_id for commit in event.commits})

    def place(self, tokens: Mapping[int, int]) -> dict[int, str]:
        """The same of token ids by position."""
        found: dict[int, str] = {}
        for position, token_id in tokens.items():
            part = self._tokenizer.token_bytes(token_id)
            if part is None:
                first = position == self._start
                found[position] = self._tokenizer.token_text(token_id, first=first)
            else:
                self._parts[position] = part
        for position in tokens:
            if position in self._parts and position not in found:
                found |= self._characters(position)
        changed = {p: text for p, text in sorted(found.items()) if self._texts.get(p) != text}
        self._texts |= changed
        return changed

    def _characters(self, position: int) -> dict[int, str]:
        """Texts of the parts that stand next to each other around a position."""
        first = last = position
        while first - 1 in self._parts:
            first -= 1
        while last + 1 in self._parts:
            last += 1
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return {p: decoder.decode(self._parts[p], p == last) for p in range(first, last + 1)}
