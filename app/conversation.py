"""A conversation with both lanes: one prompt a turn, and each lane's own answer to it.

Plain values and JSON both ways, so that a visitor's browser can keep it. What a browser hands back
is not trusted. Knows nothing of models, runs or gradio.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from d2f.errors import InvalidInput

from .prompts import check_prompt

if TYPE_CHECKING:
    from d2f.tokenizer import Message  # loads transformers

MAX_TURNS = 32
MAX_ANSWER = MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class Exchange:
    """One turn: what was asked, and what each lane answered, in the order of the lanes."""

    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Conversation:
    """What was said so far with one model pair."""

    pair: str
    turns: tuple[Exchange, ...] = ()

    def messages(self, lane: int, prompt: str) -> "list[Message]":
        """The chat as one lane saw it, and a new prompt."""
        chat: list[Message] = []
        for turn in self.turns:
            chat.append({"role": "user", "content": turn.prompt})
            chat.append({"role": "assistant", "content": turn.answers[lane]})
        return [*chat, {"role": "user", "content": prompt}]

    def with_turn(self, prompt: str, answers: Sequence[str]) -> "Conversation":
        return Conversation(self.pair, (*self.turns, Exchange(prompt, tuple(answers))))

    def without_last(self) -> "Conversation":
        return Conversation(self.pair, self.turns[:-1])

    def latest(self, turns: int) -> "Conversation":
        """Its last so many turns."""
        return Conversation(self.pair, self.turns[len(self.turns) - turns :])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any, lanes: int = 2) -> "Conversation | None":
        """Inverse of :meth:`to_dict`; None for what is no conversation of so many lanes."""
        try:
            turns = [_exchange(turn, lanes) for turn in data["turns"][-MAX_TURNS:]]
            while sum(len(t.prompt) + sum(map(len, t.answers)) for t in turns) > MAX_CHARACTERS:
                turns.pop(0)
            return cls(str(data["pair"]), tuple(turns))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _exchange(turn: Any, lanes: int) -> Exchange:
    answers = tuple(turn["answers"])
    if len(answers) != lanes or any(not isinstance(a, str) or len(a) > MAX_ANSWER for a in answers):
        raise InvalidInput("not the answers of these lanes")
    return Exchange(check_prompt(turn["prompt"]), answers)
