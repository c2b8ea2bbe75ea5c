"""Published laws of mask ratios a block, over one window that is the whole answer.

D2F trains on a whole noisy answer: each block sees the noisy blocks before it, and the teacher all
of them, the prompt's tokens included. Ratios grow from block to block.

- ``paper`` (arXiv 2508.09192, section 4.2): sorted draws of [0.3, 0.7].
- ``released`` (the code its authors published): the first ratio p is drawn of [0.2, 0.7], and each
  next one adds a draw of [0, (0.7 - p) / (blocks - 1)].
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from d2f.train.data import NO_LOSS, Example, Row, Window
from d2f.train.noise import hide

Law = Callable[[int, random.Random], list[float]]


def paper(blocks: int, rng: random.Random) -> list[float]:
    """A mask ratio a block, ascending."""
    return sorted(rng.uniform(0.3, 0.7) for _ in range(blocks))


def released(blocks: int, rng: random.Random) -> list[float]:
    """A mask ratio a block, ascending."""
    ratios = [rng.uniform(0.2, 0.7)]
    most = (0.7 - ratios[0]) / max(blocks - 1, 1)
    for _ in range(blocks - 1):
        ratios.append(ratios[-1] + rng.uniform(0, most))
    return ratios


LAWS: dict[str, Law] = {"paper": paper, "released": released}


@dataclass(frozen=True)
class WholeAnswer:
    """Rows of a law. Callable and of plain values, so that a worker can make them.

    Attributes:
        law: a name of :data:`LAWS`.
        fill_id: what fills the answer's last block and ``padding`` blocks more; it stays in the
            loss and teaches where answers end.
        inverse: a label weighs 1 / ratio of its block, as the released code has it; else 1.
    """

    law: str
    mask_id: int
    fill_id: int
    block_size: int
    padding: int
    max_length: int
    inverse: bool

    def __call__(self, example: Example, rng: random.Random) -> Row:
        size, prompt = self.block_size, len(example.prompt)
        blocks = -(-len(example.answer) // size) + self.padding
        canvas = example.answer + [self.fill_id] * (blocks * size - len(example.answer))
        canvas = canvas[: self.max_length - prompt]
        ratios = LAWS[self.law](-(-len(canvas) // size), rng)
        masked = [rng.random() < ratios[i // size] for i in range(len(canvas))]
        if not any(masked):
            masked[rng.randrange(len(canvas))] = True
        noisy, labels = hide(canvas, masked, self.mask_id)
        end = prompt + len(canvas)
        block_ends = [min(prompt + (i // size + 1) * size, end) for i in range(len(canvas))]
        weights = [1 / ratios[i // size] if self.inverse else 1.0 for i in range(len(canvas))]
        return Row(
            ids=example.prompt + noisy,
            labels=[NO_LOSS] * prompt + labels,
            # The prompt sees the prompt, and for the teacher what follows it as well.
            ends=[prompt] * end,
            windows=[Window(prompt, prompt, end)] * prompt
            + [Window(prompt, block_end, end) for block_end in block_ends],
            weights=[0.0] * prompt
            + [w if hidden else 0.0 for w, hidden in zip(weights, masked, strict=True)],
        )
