"""Conversations of a file as examples: JSON lines, each a chat or a prompt with its answer.

``{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}`` or
``{"prompt": "…", "answer": "…"}``. Each answer of a chat is an example, with all that was said
before it. A line that cannot be used is skipped, counted and named; a file without any that can is
refused.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from d2f.errors import InvalidInput
from d2f.model_files import reading
from d2f.strict_json import NoJson, from_json
from d2f.text import decoded, plain_text
from d2f.tokenizer import Message, Tokenizer
from d2f.train.data import Example

NAMED = 5  # lines of one kind of fault whose numbers are told

Said = Annotated[str, Field(min_length=1)]


class _Line(BaseModel):
    # Files of chats carry ids, sources and scores that training does not read.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Turn(_Line):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: Said


class Chat(_Line):
    """A conversation; its answers are what is learnt."""

    messages: Annotated[list[Turn], Field(min_length=2)]


class Pair(_Line):
    """A prompt and its answer."""

    prompt: Said
    answer: Said


@dataclass
class Skipped:
    """Lines that were not used: their numbers by reason."""

    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, reason: str, line: int) -> None:
        self.lines.setdefault(reason, []).append(line)

    def told(self) -> list[str]:
        """A sentence a reason, the commonest first."""
        counts = Counter({reason: len(numbers) for reason, numbers in self.lines.items()})
        return [
            f"{count:,} skipped: {reason} (line {_listed(self.lines[reason])})"
            for reason, count in counts.most_common()
        ]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:NAMED])) + (", …" if len(numbers) > NAMED else "")


def read_chats(path: Path, tokenizer: Tokenizer, most: int) -> tuple[list[Example], Skipped]:
    """The examples of a file, and what of it was skipped.

    Args:
        most: tokens that prompt and answer may have together.

    Raises:
        InvalidInput: the file is no text, or no line of it can be used.
        LoadError: it cannot be read.
    """
    with reading(path):
        data = path.read_bytes()
    examples: list[Example] = []
    skipped = Skipped()
    for number, line in enumerate(decoded(data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = chat_examples(parsed(line), tokenizer)
        except NoJson:
            skipped.add("no JSON", number)
            continue
        except InvalidInput as error:
            skipped.add(str(error), number)
            continue
        short = [each for each in found if len(each.prompt) + len(each.answer) <= most]
        if len(short) < len(found):
            skipped.add(f"longer than {most} tokens", number)
        examples.extend(short)
    if not examples:
        reasons = "; ".join(skipped.told()) or "it is empty"
        raise InvalidInput(f"{path} holds no chat to learn from: {reasons}")
    return examples, skipped


def parsed(line: str) -> list[Message]:
    """The messages of one line.

    Raises:
        InvalidInput: it is none of the two kinds, or holds control characters.
    """
    data: Any = from_json(line)
    try:
        if isinstance(data, dict) and "messages" not in data:
            pair = Pair.model_validate(data)
            turns = [("user", pair.prompt), ("assistant", pair.answer)]
        else:
            turns = [(turn.role, turn.content) for turn in Chat.model_validate(data).messages]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        raise InvalidInput(f"{where or 'the line'}: {first['msg']}") from error
    return [{"role": role, "content": plain_text(text)} for role, text in turns]


def chat_examples(messages: list[Message], tokenizer: Tokenizer) -> list[Example]:
    """An example for each answer.

    Raises:
        InvalidInput: there is none, or the model's chat template refuses the chat.
    """
    answers = [
        place for place, each in enumerate(messages) if each["role"] == "assistant" and place
    ]
    if not answers:
        raise InvalidInput("no answer of the assistant behind a prompt")
    return [
        Example(
            tokenizer.encode_chat(messages[:place]),
            [*tokenizer.encode(messages[place]["content"]), tokenizer.end_id],
        )
        for place in answers
    ]
