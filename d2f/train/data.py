"""Endless, seeded, length-bucketed batches of the task grammars.

The stream is cut into chunks, each a function of (seed, chunk number) alone, so that a resumed run
continues with exactly the batches it would have seen. What is masked and who sees whom is decided
in :mod:`d2f.train.noise`. Held-out problems never appear.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import count
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from d2f.tasks import Problem, draw
from d2f.tokenizer import Message, Tokenizer
from d2f.train.drills import drill
from d2f.train.recipes import DRILLS

CHUNK = 1024
NO_LOSS = -1
ROUND = 8  # tokens
V = TypeVar("V")


@dataclass(frozen=True)
class Example:
    """One answer to learn, with everything said before it; ``answer`` ends with the stop token."""

    prompt: list[int]
    answer: list[int]


class Window(NamedTuple):
    """Where a token of a noisy window looks beside the context: keys ``first .. block_end - 1``.

    Indices into the row; ``window_end`` is where the last block of the window ends, which the
    teacher sees.
    """

    first: int
    block_end: int
    window_end: int


NO_WINDOW = Window(0, 0, 0)


@dataclass(frozen=True)
class Row:
    """One training sequence: input ids, labels (``NO_LOSS`` where none), visible ends.

    ``weights`` are those of the labels in the loss, 0 where there is none.
    Several noisy windows may share one context: a window's token sees keys ``0 .. end - 1`` of the
    context, its own :class:`Window`, and nothing of the other windows. It stands at the position
    where the context it sees ends, plus its offset in the window.
    """

    ids: list[int]
    labels: list[int]
    ends: list[int]
    windows: list[Window]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: ``windows`` is (B, T, 3), ``lengths`` (B,), all others (B, T)."""

    ids: Tensor
    labels: Tensor
    ends: Tensor
    windows: Tensor
    weights: Tensor
    lengths: Tensor

    @property
    def tokens(self) -> int:
        """Real tokens, padding of the batch left out."""
        return int(self.lengths.sum())

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Place(NamedTuple):
    """Where a stream goes on: a chunk, and how many of its batches are done."""

    chunk: int = 0
    done: int = 0


def example(problem: Problem, turn: int, tokenizer: Tokenizer) -> Example:
    """The answer of one turn, after the conversation up to it."""
    return encode(problem.messages(turn), problem.turns[turn].answer, tokenizer)


def encode(messages: list[Message], answer: str, tokenizer: Tokenizer) -> Example:
    """An answer after the messages before it."""
    return Example(tokenizer.encode_chat(messages), [*tokenizer.encode(answer), tokenizer.end_id])


def chunk_examples(
    seed: int, chunk: int, tokenizer: Tokenizer, mixture: Mapping[str, float]
) -> list[Example]:
    """The examples of one chunk, in a random order of tasks."""
    rng = random.Random(f"{seed}:{chunk}")
    draws = {name: draw(name, "train", rng.getrandbits(48)) for name in mixture if name != DRILLS}
    examples = []
    for name in rng.choices(list(mixture), list(mixture.values()), k=CHUNK):
        if name == DRILLS:
            prompt, answer = drill(rng)
            examples.append(encode([{"role": "user", "content": prompt}], answer, tokenizer))
        else:
            problem = next(draws[name])
            examples.append(example(problem, rng.randrange(len(problem.turns)), tokenizer))
    return examples


@dataclass(frozen=True)
class Stream(IterableDataset[tuple[Place, Batch]]):
    """Endless ``(where to go on behind it, batch)`` pairs from a place on.

    A data set, so that a worker process can make it: one, lest the order change. ``examples`` are
    those of a chunk, always the same.
    """

    seed: int
    start: Place
    batch_tokens: int
    examples: Callable[[int], list[Example]]
    make_row: Callable[[Example, random.Random], Row]

    def __iter__(self) -> Iterator[tuple[Place, Batch]]:
        for chunk in count(self.start.chunk):
            groups = self._groups(chunk)
            first = self.start.done if chunk == self.start.chunk else 0
            for done, group in enumerate(groups[first:], first + 1):
                place = Place(chunk, done) if done < len(groups) else Place(chunk + 1)
                yield place, collate(group)

    def _groups(self, chunk: int) -> list[list[Row]]:
        rng = random.Random(f"rows:{self.seed}:{chunk}")
        rows = [self.make_row(each, rng) for each in self.examples(chunk)]
        rows.sort(key=lambda row: len(row.ids))
        groups = _group(rows, self.batch_tokens)
        rng.shuffle(groups)
        return groups


def _rounded(length: int) -> int:
    """The length a row is padded to."""
    return -(-length // ROUND) * ROUND


def _group(rows: list[Row], tokens_per_batch: int) -> list[list[Row]]:
    groups: list[list[Row]] = [[]]
    for row in rows:  # ascending length: the newest row sets the padded length
        if groups[-1] and _rounded(len(row.ids)) * (len(groups[-1]) + 1) > tokens_per_batch:
            groups.append([])
        groups[-1].append(row)
    return groups


def collate(rows: list[Row]) -> Batch:
    """Pad on the right; padding rows see the first key only and bear no loss.

    To few lengths: kernels prepare themselves for every shape anew, an eighth of the time, and keep
    what they prepared: after 720 steps a run held 4.8 GB.
    """
    longest = _rounded(max(len(row.ids) for row in rows))

    def padded(values: list[V], fill: V) -> list[V]:
        return values + [fill] * (longest - len(values))

    return Batch(
        ids=torch.tensor([padded(row.ids, 0) for row in rows]),
        labels=torch.tensor([padded(row.labels, NO_LOSS) for row in rows]),
        ends=torch.tensor([padded(row.ends, 1) for row in rows]),
        windows=torch.tensor([padded(row.windows, NO_WINDOW) for row in rows]),
        weights=torch.tensor([padded(row.weights, 0.0) for row in rows]),
        lengths=torch.tensor([len(row.ids) for row in rows]),
    )
