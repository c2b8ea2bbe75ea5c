"""The training loop: batches in, weights and a log out; cut at any moment, it goes on as it was."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from d2f.train.data import Batch, Example, Place, Row, Stream, chunk_examples
from d2f.train.losses import data_loss, distillation_loss
from d2f.train.muon import Muon
from d2f.train.noise import Noise, causal_row
from d2f.train.recipes import MIXTURES, Recipe, Schedule

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


def schedule(recipe: Schedule, tokens: int) -> float:
    """Learning rate after ``tokens``: warm-up, plateau, linear decay."""
    up = min(1.0, (tokens + 1) / recipe.warmup)
    down = min(1.0, (recipe.tokens - tokens) / (recipe.decay * recipe.tokens))
    return recipe.learning_rate * min(up, max(0.0, down))


@dataclass(frozen=True)
class Task:
    """What a run learns.

    Attributes:
        net: at its starting weights, on the device it trains on.
        batches: from a place on.
        trained: the weights that change, by name; what is saved of the network.
    """

    net: Transformer
    loss: Loss
    optimizers: list[torch.optim.Optimizer]
    batches: Callable[[Place], Stream]
    trained: Callable[[], dict[str, Tensor]]


def embedded_task(recipe: Recipe, tokenizer: Tokenizer, net: Transformer) -> Task:
    """A recipe's: all weights, of examples that grammars make."""
    examples = partial(
        chunk_examples, recipe.seed, tokenizer=tokenizer, mixture=MIXTURES[recipe.mixture]
    )
    rows = corruption(recipe, tokenizer)
    return Task(
        net,
        loss_function(recipe, net.embed_tokens.weight.device),
        make_optimizers(net, recipe),
        lambda place: Stream(recipe.seed, place, recipe.batch_tokens, examples, rows),
        net.state_dict,
    )


class Run:
    """A training run that survives being cut: everything it needs to go on is in its folder.

    Args:
        workers: 1 makes the batches in a process of its own, 0 in this one.
    """

    def __init__(
        self, name: str, recipe: Schedule, folder: Path, task: Task, workers: int = 0
    ) -> None:
        self.name, self.recipe, self.folder = name, recipe, folder
        self.task, self.net, self.workers = task, task.net, workers
        self.device = self.net.embed_tokens.weight.device
        self.step, self.tokens, self.place, self.seconds = 0, 0, Place(), 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / "checkpoint.pt"
        if self.checkpoint.is_file():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        stored = type(self.recipe)(**state["recipe"])
        if replace(stored, tokens=self.recipe.tokens) != self.recipe:
            raise InvalidInput(
                f"{self.checkpoint} was made with other settings: {stored}; "
                "train under another --runs folder, or remove it"
            )
        trained = self.task.trained()
        with torch.no_grad():
            for name, weight in state["net"].items():
                trained[name].copy_(weight)
        for optimizer, stored_state in zip(self.task.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored_state)
        self.step, self.tokens = state["step"], state["tokens"]
        self.place, self.seconds = Place(*state["place"]), state["seconds"]
        # Dropout draws from it. Checkpoints of earlier versions have none.
        if "random" in state:
            torch.set_rng_state(state["random"].cpu())
        print(f"resumed {self.name} at {self.tokens:,} tokens")

    def save(self) -> None:
        trained = self.task.trained()
        self._check_finite("the weights", *trained.values())
        state = {
            "recipe": asdict(self.recipe),
            "net": trained,
            "optimizers": [optimizer.state_dict() for optimizer in self.task.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "place": tuple(self.place),
            "random": torch.get_rng_state(),
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
        stream = self.task.batches(self.place)
        ahead = AHEAD if self.workers else None
        # Of its own, lest a start of the loader change what dropout draws.
        chance = torch.Generator()
        loader = DataLoader(
            stream,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=ahead,
            generator=chance,
        )
        return iter(loader)

    def _until_done(self, stream: Iterator[tuple[Place, Batch]]) -> Iterator[tuple[Place, Batch]]:
        while self.tokens < self.recipe.tokens:
            yield next(stream)

    def _step(self, batch: Batch) -> float:
        start = time.perf_counter()
        rate = schedule(self.recipe, self.tokens)
        precision = getattr(torch, self.recipe.precision)
        narrow = precision != torch.float32
        with torch.autocast(self.device.type, precision, enabled=narrow):
            loss = self.task.loss(self.net, batch.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._check_finite(f"the loss and its gradient in step {self.step}", loss.detach(), norm)
        for optimizer in self.task.optimizers:
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
