"""The training loop: batches in, weights and a log out; cut at any moment, it goes on as it was."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from d2f.checkpoints.load import load_model
from d2f.errors import ComputeError, InvalidInput
from d2f.nn.transformer import Transformer
from d2f.strict_json import to_json
from d2f.tokenizer import Tokenizer
from d2f.train.data import Batch, Example, Place, Row, Stream
from d2f.train.losses import data_loss, distillation_loss
from d2f.train.muon import Muon
from d2f.train.noise import Noise, causal_row
from d2f.train.recipes import MIXTURES, Recipe

SAVE_EVERY = 180.0  # seconds
LOG_EVERY = 10  # steps
AHEAD = 16  # batches a worker makes before they are wanted

RowMaker = Callable[[Example, random.Random], Row]
Loss = Callable[[Transformer, Batch], Tensor]


@dataclass(frozen=True)
class Corruption:
    """The objective's rows. Callable and of plain values, so that a worker can make them."""

    noise: Noise
    objective: str
    causal_share: float

    def __call__(self, example: Example, rng: random.Random) -> Row:
        if rng.random() < self.causal_share:
            return causal_row(example)
        return self._maker()(example, rng)

    def _maker(self) -> RowMaker:
        makers: dict[str, RowMaker] = {
            "causal": lambda example, rng: causal_row(example),
            "masked": self.noise.masked_row,
            "mixed": self.noise.mixed_row,
            "blocks": self.noise.block_row,
        }
        return makers[self.objective]


def corruption(recipe: Recipe, tokenizer: Tokenizer) -> Corruption:
    """What a recipe makes of an example."""
    mask_id = tokenizer.mask_id
    assert mask_id is not None
    noise = Noise(mask_id, tokenizer.pad_id, recipe.block_size, recipe.max_window, 1024)
    return Corruption(noise, recipe.objective, recipe.causal_share)


def loss_function(recipe: Recipe, device: torch.device) -> Loss:
    """The objective's loss; loads the teacher if there is one."""
    if recipe.teacher is None or recipe.teacher_share == 0:
        return data_loss
    teacher = load_model(recipe.teacher).net.to(device)
    share, direction = recipe.teacher_share, recipe.direction
    return lambda net, batch: distillation_loss(teacher, net, batch, share, direction)


def make_optimizers(net: Transformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices; AdamW, without decay, for embeddings, head and norms."""
    matrices = {name: p for name, p in net.named_parameters() if name.endswith("proj.weight")}
    others = [p for name, p in net.named_parameters() if name not in matrices]
    rate, dtype = recipe.learning_rate, getattr(torch, recipe.precision)
    return [
        Muon(matrices.values(), lr=rate, weight_decay=recipe.weight_decay, precision=dtype),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def schedule(recipe: Recipe, tokens: int) -> float:
    """Learning rate after ``tokens``: warm-up, plateau, linear decay."""
    up = min(1.0, (tokens + 1) / recipe.warmup)
    down = min(1.0, (recipe.tokens - tokens) / (recipe.decay * recipe.tokens))
    return recipe.learning_rate * min(up, max(0.0, down))


class Run:
    """A training run that survives being cut: everything it needs to go on is in its folder.

    Args:
        net: at its starting weights, on the device it trains on.
        workers: 1 makes the batches in a process of its own, 0 in this one.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        folder: Path,
        tokenizer: Tokenizer,
        net: Transformer,
        workers: int = 0,
    ) -> None:
        self.name, self.recipe, self.folder, self.tokenizer = name, recipe, folder, tokenizer
        self.net, self.workers = net, workers
        self.device = net.embed_tokens.weight.device
        self.optimizers = make_optimizers(self.net, recipe)
        self.loss = loss_function(recipe, self.device)
        self.step, self.tokens, self.place, self.seconds = 0, 0, Place(), 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / "checkpoint.pt"
        if self.checkpoint.is_file():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        stored = Recipe(**state["recipe"])
        if replace(stored, tokens=self.recipe.tokens) != self.recipe:
            raise InvalidInput(
                f"{self.checkpoint} was made with other settings: {stored}; "
                "train under another --runs folder, or remove it"
            )
        self.net.load_state_dict(state["net"])
        for optimizer, stored_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored_state)
        self.step, self.tokens = state["step"], state["tokens"]
        self.place, self.seconds = Place(*state["place"]), state["seconds"]
        print(f"resumed {self.name} at {self.tokens:,} tokens")

    def save(self) -> None:
        self._check_finite("the weights", *self.net.parameters())
        state = {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "place": tuple(self.place),
            "seconds": self.seconds,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def train(self) -> None:
        saved = time.monotonic()
        with tqdm(
            total=self.recipe.tokens,
            initial=self.tokens,
            unit="tok",
            unit_scale=True,
            mininterval=5,
        ) as bar:
            for place, batch in self._until_done(self._batches()):
                loss = self._step(batch)
                self.place = place
                bar.update(batch.tokens)
                if self.step % LOG_EVERY == 0:
                    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                    self._log(loss)
                if time.monotonic() - saved > SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _batches(self) -> Iterator[tuple[Place, Batch]]:
        recipe = self.recipe
        stream = Stream(
            recipe.seed,
            self.place,
            recipe.batch_tokens,
            self.tokenizer,
            MIXTURES[recipe.mixture],
            corruption(recipe, self.tokenizer),
        )
        ahead = AHEAD if self.workers else None
        return iter(
            DataLoader(stream, batch_size=None, num_workers=self.workers, prefetch_factor=ahead)
        )

    def _until_done(self, stream: Iterator[tuple[Place, Batch]]) -> Iterator[tuple[Place, Batch]]:
        while self.tokens < self.recipe.tokens:
            yield next(stream)

    def _step(self, batch: Batch) -> float:
        start = time.perf_counter()
        rate = schedule(self.recipe, self.tokens)
        precision = getattr(torch, self.recipe.precision)
        narrow = precision != torch.float32
        with torch.autocast(self.device.type, precision, enabled=narrow):
            loss = self.loss(self.net, batch.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._check_finite(f"the loss and its gradient in step {self.step}", loss.detach(), norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += batch.tokens
        self.seconds += time.perf_counter() - start
        return loss.item()

    def _check_finite(self, what: str, *values: Tensor) -> None:
        """Ends the run before numbers that are none reach the weights, or the weights the disk."""
        if not all(value.isfinite().all() for value in values):
            raise ComputeError(
                f"{what} became NaN or infinity: lower --learning-rate; what was learnt before is "
                f"in {self.folder}"
            )

    def _log(self, loss: float) -> None:
        entry = {
            "step": self.step,
            "tokens": self.tokens,
            "loss": round(loss, 4),
            "lr": round(schedule(self.recipe, self.tokens), 7),
            "seconds": round(self.seconds, 1),
        }
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(to_json(entry) + "\n")
