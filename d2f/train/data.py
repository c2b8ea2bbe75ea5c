"""Endless, seeded, length-bucketed batches of the task grammars.

The stream is cut into chunks, each a function of (seed, chunk number) alone, so that a resumed run
continues with exactly the batches it would have seen. What is masked and who sees whom is decided
in :mod:`d2f.train.noise`. Held-out problems never appear.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from d2f.tasks import TASKS, Problem, draw
from d2f.tokenizer import Message, Tokenizer
from d2f.train.drills import drill

CHUNK = 1024
DRILLS = "drills"
# Shares of examples; the families with more to compute get more.
MIX = {"gsm-mini": 0.25, "math-mini": 0.38, "code-mini": 0.12, "sudoku-mini": 0.12, DRILLS: 0.13}
NO_LOSS = -1
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


def example(problem: Problem, turn: int, tokenizer: Tokenizer) -> Example:
    """The answer of one turn, after the conversation up to it."""
    history = []
    for earlier in problem.turns[:turn]:
        history.append({"role": "user", "content": earlier.prompt})
        history.append({"role": "assistant", "content": earlier.answer})
    return encode(history, problem.turns[turn].prompt, problem.turns[turn].answer, tokenizer)


def encode(history: list[Message], prompt: str, answer: str, tokenizer: Tokenizer) -> Example:
    """An answer after its prompt and what came before."""
    ids = tokenizer.encode_chat([*history, {"role": "user", "content": prompt}])
    return Example(ids, [*tokenizer.encode(answer), tokenizer.end_id])


def chunk_examples(seed: int, chunk: int, tokenizer: Tokenizer) -> list[Example]:
    """The examples of one chunk, in a random order of tasks."""
    rng = random.Random(f"{seed}:{chunk}")
    draws = {task: draw(task, "train", rng.getrandbits(48)) for task in TASKS}
    names, shares = list(MIX), list(MIX.values())
    examples = []
    for name in rng.choices(names, shares, k=CHUNK):
        if name == DRILLS:
            examples.append(encode([], *drill(rng), tokenizer))
        else:
            problem = next(draws[name])
            examples.append(example(problem, rng.randrange(len(problem.turns)), tokenizer))
    return examples


def batches(
    seed: int,
    start: int,
    tokens_per_batch: int,
    tokenizer: Tokenizer,
    make_row: Callable[[Example, random.Random], Row],
) -> Iterator[tuple[int, Batch]]:
    """Endless ``(next chunk to resume from, batch)`` pairs from chunk ``start`` on."""
    chunk = start
    while True:
        rng = random.Random(f"rows:{seed}:{chunk}")
        rows = [make_row(e, rng) for e in chunk_examples(seed, chunk, tokenizer)]
        rows.sort(key=lambda row: len(row.ids))
        groups = _group(rows, tokens_per_batch)
        rng.shuffle(groups)
        chunk += 1
        for i, group in enumerate(groups):
            # Until its last batch, a chunk counts as unseen.
            yield chunk - (i + 1 < len(groups)), collate(group)


def _group(rows: list[Row], tokens_per_batch: int) -> list[list[Row]]:
    groups: list[list[Row]] = [[]]
    for row in rows:  # ascending length: the newest row sets the padded length
        if groups[-1] and len(row.ids) * (len(groups[-1]) + 1) > tokens_per_batch:
            groups.append([])
        groups[-1].append(row)
    return groups


def collate(rows: list[Row]) -> Batch:
    """Pad on the right; padding rows see the first key only and bear no loss."""
    longest = max(len(row.ids) for row in rows)

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
