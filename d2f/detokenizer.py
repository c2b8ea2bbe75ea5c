"""The text of an answer in the making, for whoever shows it as it is decoded.

Knows nothing of models, decoders or screens.
"""

from d2f.events import StepEvent
from d2f.tokenizer import Tokenizer


class ReadableText:
    """The readable part of an answer in the making: it only grows, by whole characters.

    Decoders commit in any order; readable is what lies before the first gap and the first stop.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_length: int) -> None:
        self._tokenizer = tokenizer
        self._canvas: dict[int, int] = {}
        self._next = prompt_length
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
