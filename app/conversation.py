"""A conversation with both lanes: one prompt a turn, and each lane's own answer to it.

Plain values and JSON both ways, so that a visitor's browser can keep it. What a browser hands back
is not trusted. Knows nothing of models, runs or gradio.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from d2f.errors import InvalidInput

from .characters import whole
from .prompts import check_prompt

if TYPE_CHECKING:
    from d2f.tokenizer import Message  # loads transformers

MAX_TURNS = 32
MAX_ANSWER = MAX_CHARACTERS = 100_000
# How thoughts are set off from what is said where a server sends them apart.
THOUGHTS_BEGIN, THOUGHTS_END = "<think>\n", "\n</think>\n\n"
# As models set them off themselves; where the chat template begins them, only their end shows.
_THOUGHTS = re.compile(
    r"(?:\s*<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)"
    r"|\s*\[THINK\].*?(?:\[/THINK\]|\Z))+\s*"
    r"|(?:(?!<think>).)*?</think>\s*",
    re.DOTALL | re.IGNORECASE,
)


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
            return cls(whole(str(data["pair"])), tuple(turns))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _exchange(turn: Any, lanes: int) -> Exchange:
    answers = tuple(turn["answers"])
    if len(answers) != lanes or any(not isinstance(a, str) or len(a) > MAX_ANSWER for a in answers):
        raise InvalidInput("not the answers of these lanes")
    return Exchange(check_prompt(turn["prompt"]), tuple(map(whole, answers)))


def spoken(text: str) -> str:
    """The answer alone: without what the model thought aloud before."""
    thoughts = _THOUGHTS.match(text)
    return text[thoughts.end() :] if thoughts else text
