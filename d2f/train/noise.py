"""From an example to a training row: what is masked, and which keys each row may see.

Three objectives. Causal: nothing masked. Masked diffusion (LLaDA, arXiv 2502.09992, section 2.2):
one mask ratio t ~ U(0, 1) over the answer, every token sees every other. D2F (arXiv 2508.09192,
section 4.2, Algorithm 1): a mask ratio a block, growing from block to block, block-causal sight.

Where this differs from the paper: its ratios stop at 0.7, while decoding starts every block at
1.0 behind finished blocks. Here the blocks before a window are clean, as decoding caches them, and
a window is what decoding meets: a block follows only one that is begun, most blocks are untouched,
some are decided from the left, and of the others few tokens are left. Of 1,053 windows that
mini-d2f met in its four tasks, 77 % were one block, and 74 % of first and 76 % of second blocks
untouched. Prompt and clean blocks are computed once for several windows, which teaches more than
twice as much a token.

A label weighs 1 / (1 + masked tokens to its left in the window). Else the many tokens far ahead,
which hang on what is not decided yet, drown the next ones, which can be known: with equal weights
a network that had learned the answers autoregressively lost them again.
"""

import random
from dataclasses import dataclass

from d2f.train.data import NO_LOSS, NO_WINDOW, Example, Row, Window

# Chances in a window: of an untouched first block, and of an untouched later one; that nothing
# follows a block that is begun; that such a block is decided from the left.
UNTOUCHED = (0.5, 0.75)
ALONE = 0.3
FROM_THE_LEFT = 0.4


def causal_row(example: Example) -> Row:
    """Next-token prediction of the answer."""
    ids = example.prompt + example.answer
    labels = [NO_LOSS] * len(example.prompt) + example.answer
    weights = [0.0] * len(example.prompt) + [1.0] * len(example.answer)
    return Row(ids, labels, list(range(1, len(ids) + 1)), [NO_WINDOW] * len(ids), weights)


def label_weights(labels: list[int]) -> list[float]:
    """Weights of the labels of a window: the harmonic series over what is masked."""
    weights, masked = [], 0
    for label in labels:
        masked += label != NO_LOSS
        weights.append(1 / masked if label != NO_LOSS else 0.0)
    return weights


def hide(canvas: list[int], masked: list[bool], mask_id: int) -> tuple[list[int], list[int]]:
    """Noisy ids and labels."""
    pairs = list(zip(canvas, masked, strict=True))
    noisy = [mask_id if hidden else token for token, hidden in pairs]
    return noisy, [token if hidden else NO_LOSS for token, hidden in pairs]


@dataclass(frozen=True)
class Noise:
    """Ids and limits that corruption needs. ``pad_id`` fills a canvas behind the stop token.

    A block row holds ``views`` noisy views of its answer, each cut into windows.
    """

    mask_id: int
    pad_id: int
    block_size: int
    max_window: int
    max_length: int
    views: int = 3

    def mixed_row(self, example: Example, rng: random.Random) -> Row:
        """The teacher's diet: half whole canvases, half windows of blocks.

        Windows cost the teacher little and hand its student, who starts from its weights, a
        working sense of block-causal sight.
        """
        return (self.masked_row if rng.random() < 0.5 else self.block_row)(example, rng)

    def masked_row(self, example: Example, rng: random.Random) -> Row:
        """Masked diffusion over a canvas of random length, both ways visible.

        Short answers behind long canvases are what vanilla decoding meets, whose first decisions
        are mostly the padding at the far end: half of the time the padding from some place on is
        shown. A canvas that ends before its answer is what a window shows. Half of the rows are
        states of decoding block by block, as LLaDA does, which chance would all but never make.
        """
        canvas = example.answer + [self.pad_id] * self._padding(rng)
        if rng.random() < 0.3:
            canvas = canvas[: rng.randrange(1, len(example.answer) + 1)]
        canvas = canvas[: self.max_length - len(example.prompt)]
        if rng.random() < 0.5:
            masked = self._open_block(len(canvas), len(example.answer), rng)
        else:
            shown = len(canvas)
            if shown > len(example.answer) and rng.random() < 0.5:
                shown = rng.randrange(len(example.answer), shown)
            masked = self._bernoulli(shown, 1 - rng.random(), rng)
            masked += [False] * (len(canvas) - shown)
        noisy, labels = hide(canvas, masked, self.mask_id)
        prompt = len(example.prompt)
        length = prompt + len(canvas)
        return Row(
            ids=example.prompt + noisy,
            labels=[NO_LOSS] * prompt + labels,
            ends=[length] * length,
            windows=[NO_WINDOW] * length,
            weights=[0.0] * prompt + label_weights(labels),
        )

    def block_row(self, example: Example, rng: random.Random) -> Row:
        """Prompt and clean blocks, then views of the answer as windows of noisy blocks.

        The end-of-text padding that fills the answer's last block, and at times a block more,
        stays in the loss: it teaches where answers end.
        """
        size, prompt = self.block_size, len(example.prompt)
        canvas = example.answer + [self.pad_id] * size * 2
        windows = [w for _ in range(self.views) for w in self._windows(len(example.answer), rng)]
        clean = max(first for first, _ in windows)
        row = Row(
            ids=example.prompt + canvas[:clean],
            labels=[NO_LOSS] * (prompt + clean),
            ends=[prompt] * prompt + [prompt + (i // size + 1) * size for i in range(clean)],
            windows=[NO_WINDOW] * (prompt + clean),
            weights=[0.0] * (prompt + clean),
        )
        for first, masked in windows:
            noisy, labels = hide(canvas[first : first + len(masked)], masked, self.mask_id)
            start = len(row.ids)
            row.ids.extend(noisy)
            row.labels.extend(labels)
            row.weights.extend(label_weights(labels))
            row.ends.extend([prompt + first] * len(noisy))
            row.windows.extend(
                Window(start, start + (i // size + 1) * size, start + len(noisy))
                for i in range(len(noisy))
            )
        return row

    def _windows(self, answer: int, rng: random.Random) -> list[tuple[int, list[bool]]]:
        """Where windows that tile an answer begin, and their masks; a block longer at times."""
        blocks = -(-answer // self.block_size)
        windows, first = [], 0
        while first < blocks:
            masked = self._window_mask(min(self.max_window, blocks + 1 - first), rng)
            windows.append((first * self.block_size, masked))
            first += len(masked) // self.block_size
        return windows

    def _window_mask(self, most: int, rng: random.Random) -> list[bool]:
        """Up to ``most`` blocks as decoding leaves them, an untouched one only at the end."""
        masked = self._block_mask(UNTOUCHED[0], rng)
        for _ in range(most - 1):
            if all(masked[-self.block_size :]) or rng.random() < ALONE:
                break
            masked += self._block_mask(UNTOUCHED[1], rng)
        return masked

    def _block_mask(self, untouched: float, rng: random.Random) -> list[bool]:
        size = self.block_size
        if rng.random() < untouched:
            return [True] * size
        if rng.random() < FROM_THE_LEFT:
            decided = rng.randrange(size)
            return [False] * decided + [True] * (size - decided)
        return self._bernoulli(size, rng.random() ** 2, rng)

    def _open_block(self, length: int, answer: int, rng: random.Random) -> list[bool]:
        """Everything decided before a place in the answer, chance in its block, nothing behind."""
        at = rng.randrange(min(answer, length))
        end = min((at // self.block_size + 1) * self.block_size, length)
        inside = self._bernoulli(end - at, 1 - rng.random(), rng)
        return [False] * at + inside + [True] * (length - end)

    def _padding(self, rng: random.Random) -> int:
        """Up to a block, a few blocks, or the canvas of the paper's vanilla baseline."""
        return rng.randrange(rng.choices((self.block_size, 64, 512), (0.4, 0.35, 0.25))[0])

    def _bernoulli(self, length: int, ratio: float, rng: random.Random) -> list[bool]:
        masked = [rng.random() < ratio for _ in range(length)]
        if not any(masked):
            masked[rng.randrange(length)] = True
        return masked
