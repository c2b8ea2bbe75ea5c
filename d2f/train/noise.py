"""From an example to a training row: what is masked, and which keys each row may see.

Three objectives. Causal: nothing masked. Masked diffusion (LLaDA, arXiv 2502.09992, section 2.2):
one mask ratio t ~ U(0, 1) over the answer, every token sees every other. D2F (arXiv 2508.09192,
section 4.2, Algorithm 1): a mask ratio a block, growing from block to block, block-causal sight.

Where this differs from the paper: its ratios stop at 0.7, while decoding starts every block at
1.0 behind finished blocks. Here the blocks before a window are clean, as decoding caches them, the
window's ratios grow up to 1.0, its length is bounded as the decoder's is, and half of the time its
first block is decided from the left, as blocks mostly are, rather than at random.
"""

import random
from dataclasses import dataclass

from d2f.train.data import NO_LOSS, Example, Row


def causal_row(example: Example) -> Row:
    """Next-token prediction of the answer."""
    ids = example.prompt + example.answer
    labels = [NO_LOSS] * len(example.prompt) + example.answer
    return Row(ids, labels, list(range(1, len(ids) + 1)))


@dataclass(frozen=True)
class Noise:
    """Ids and limits that corruption needs. ``pad_id`` fills a canvas behind the stop token."""

    mask_id: int
    pad_id: int
    block_size: int
    max_window: int
    max_length: int

    def mixed_row(self, example: Example, rng: random.Random) -> Row:
        """The teacher's diet: half whole canvases, half windows of blocks.

        Windows cost the teacher little and hand its student, who starts from its weights, a
        working sense of block-causal sight.
        """
        return (self.masked_row if rng.random() < 0.5 else self.block_row)(example, rng)

    def masked_row(self, example: Example, rng: random.Random) -> Row:
        """Masked diffusion over a canvas of random length, both ways visible.

        Short answers behind long canvases are what vanilla decoding meets, and a canvas that ends
        before its answer is what a window shows.
        """
        canvas = example.answer + [self.pad_id] * self._padding(rng)
        if rng.random() < 0.3:
            canvas = canvas[: rng.randrange(1, len(example.answer) + 1)]
        canvas = canvas[: self.max_length - len(example.prompt)]
        masked = self._bernoulli(len(canvas), 1 - rng.random(), rng)
        length = len(example.prompt) + len(canvas)
        return self._row(example.prompt, canvas, masked, [length] * length)

    def block_row(self, example: Example, rng: random.Random) -> Row:
        """A window of blocks with growing mask ratios behind a clean prefix, block-causal.

        The end-of-text padding that fills the answer's last block, and at times a block more,
        stays in the loss: it teaches where answers end.
        """
        size = self.block_size
        blocks = -(-len(example.answer) // size)
        first = rng.randrange(blocks)
        window = min(rng.randint(1, self.max_window), blocks + 1 - first)
        canvas = example.answer + [self.pad_id] * size * 2
        canvas = canvas[: (first + window) * size]
        ratio = 1.0 if rng.random() < 0.25 else 1 - rng.random()
        masked = [False] * (first * size)
        if rng.random() < 0.5:
            decided = rng.randrange(size)
            masked += [False] * decided + [True] * (size - decided)
            ratio, window = 1 - rng.random(), window - 1
        for _ in range(window):
            masked += self._bernoulli(size, ratio, rng)
            ratio = 1.0 if rng.random() < 0.5 else ratio + (1 - ratio) * rng.random()
        prompt = len(example.prompt)
        ends = [prompt] * prompt + [prompt + (i // size + 1) * size for i in range(len(canvas))]
        return self._row(example.prompt, canvas, masked, ends)

    def _padding(self, rng: random.Random) -> int:
        kind = rng.random()
        if kind < 0.6:
            return rng.randrange(self.block_size)
        if kind < 0.95:
            return rng.randrange(64)
        return rng.randrange(384)

    def _bernoulli(self, length: int, ratio: float, rng: random.Random) -> list[bool]:
        masked = [rng.random() < ratio for _ in range(length)]
        if not any(masked):
            masked[rng.randrange(length)] = True
        return masked

    def _row(
        self, prompt: list[int], canvas: list[int], masked: list[bool], ends: list[int]
    ) -> Row:
        pairs = list(zip(canvas, masked, strict=True))
        noisy = [self.mask_id if hide else token for token, hide in pairs]
        labels = [token if hide else NO_LOSS for token, hide in pairs]
        return Row(prompt + noisy, [NO_LOSS] * len(prompt) + labels, ends)
