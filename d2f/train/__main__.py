"""``python -m d2f train NAME``: trains one embedded model, from data to model folder.

Stops and resumes: progress is saved every few minutes to ``runs/NAME`` and picked up by the same
command. Knows no decoding; what a model is worth is measured by ``python -m d2f bench``.
"""

from d2f.cli.program import program, starting

with starting():
    import argparse
    import random
    import shutil
    import sys
    import time
    from collections.abc import Callable, Iterator, Sequence
    from dataclasses import asdict, fields, replace
    from pathlib import Path

    import torch
    from torch import Tensor, nn
    from tqdm import tqdm

    from d2f.catalogue.pairs import EMBEDDED, model_folder
    from d2f.checkpoints.load import load_model
    from d2f.checkpoints.save import save_model
    from d2f.cli.options import Parser
    from d2f.errors import ComputeError, InvalidInput
    from d2f.nn.transformer import Transformer
    from d2f.strict_json import to_json
    from d2f.tokenizer import Tokenizer
    from d2f.train.card import earlier_stages, evaluate, evaluation_config, stage, write_card
    from d2f.train.data import Batch, Example, Row, batches
    from d2f.train.losses import data_loss, distillation_loss
    from d2f.train.muon import Muon
    from d2f.train.noise import Noise, causal_row
    from d2f.train.recipes import RECIPES, Recipe, model_shape
    from d2f.train.vocabulary import TOKENIZER_FILES, train_tokenizer

SAVE_EVERY = 180.0  # seconds
LOG_EVERY = 10  # steps


def initialise(net: Transformer) -> None:
    """Normal(0, 0.02), the products that feed the residual stream scaled down with depth."""
    for name, parameter in net.named_parameters():
        if parameter.dim() == 2:
            feeds_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            scale = (2 * net.config.num_layers) ** -0.5 if feeds_residual else 1.0
            nn.init.normal_(parameter, std=0.02 * scale)


def build(recipe: Recipe, tokenizer: Tokenizer) -> Transformer:
    """The network at its starting weights."""
    torch.manual_seed(recipe.seed)
    mask_id = tokenizer.mask_id
    assert mask_id is not None
    net = Transformer(model_shape(recipe, mask_id))
    initialise(net)
    if recipe.init is not None:
        net.load_state_dict(load_model(recipe.init).net.state_dict())
    return net.train()


def give_tokenizer(folder: Path, recipe: Recipe) -> None:
    """The tokenizer of the model that training starts from, or a new one."""
    if recipe.init is None:
        train_tokenizer(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(model_folder(recipe.init) / name, folder / name)


def row_maker(recipe: Recipe, tokenizer: Tokenizer) -> Callable[[Example, random.Random], Row]:
    """The objective's corruption."""
    mask_id = tokenizer.mask_id
    assert mask_id is not None
    noise = Noise(mask_id, tokenizer.pad_id, recipe.block_size, recipe.max_window, 1024)
    makers: dict[str, Callable[[Example, random.Random], Row]] = {
        "causal": lambda example, rng: causal_row(example),
        "masked": noise.masked_row,
        "mixed": noise.mixed_row,
        "blocks": noise.block_row,
    }
    if recipe.objective not in makers:
        raise InvalidInput(f"objective must be one of {sorted(makers)}, got {recipe.objective!r}")
    return makers[recipe.objective]


def loss_function(recipe: Recipe) -> Callable[[Transformer, Batch], Tensor]:
    """The objective's loss; loads the teacher if there is one."""
    if recipe.teacher is None or recipe.teacher_share == 0:
        return data_loss
    teacher = load_model(recipe.teacher).net
    share, direction = recipe.teacher_share, recipe.direction
    return lambda net, batch: distillation_loss(teacher, net, batch, share, direction)


def make_optimizers(net: Transformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices; AdamW, without decay, for embeddings, head and norms."""
    matrices = {name: p for name, p in net.named_parameters() if name.endswith("proj.weight")}
    others = [p for name, p in net.named_parameters() if name not in matrices]
    rate = recipe.learning_rate
    return [
        Muon(matrices.values(), lr=rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def schedule(recipe: Recipe, tokens: int) -> float:
    """Learning rate after ``tokens``: warm-up, plateau, linear decay."""
    up = min(1.0, (tokens + 1) / recipe.warmup)
    down = min(1.0, (recipe.tokens - tokens) / (recipe.decay * recipe.tokens))
    return recipe.learning_rate * min(up, max(0.0, down))


class Run:
    """A training run that survives being cut: everything it needs to go on is in its folder."""

    def __init__(self, name: str, recipe: Recipe, folder: Path, tokenizer: Tokenizer) -> None:
        self.name, self.recipe, self.folder, self.tokenizer = name, recipe, folder, tokenizer
        self.net = build(recipe, tokenizer)
        self.optimizers = make_optimizers(self.net, recipe)
        self.loss = loss_function(recipe)
        self.step, self.tokens, self.chunk, self.seconds = 0, 0, 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / "checkpoint.pt"
        if self.checkpoint.is_file():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
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
        self.chunk, self.seconds = state["chunk"], state["seconds"]
        print(f"resumed {self.name} at {self.tokens:,} tokens")

    def save(self) -> None:
        self._check_finite("the weights", *self.net.parameters())
        state = {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "chunk": self.chunk,
            "seconds": self.seconds,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def train(self) -> None:
        recipe = self.recipe
        make_row = row_maker(recipe, self.tokenizer)
        stream = batches(recipe.seed, self.chunk, recipe.batch_tokens, self.tokenizer, make_row)
        saved = time.monotonic()
        with tqdm(
            total=recipe.tokens, initial=self.tokens, unit="tok", unit_scale=True, mininterval=5
        ) as bar:
            for chunk, batch in self._until_done(stream):
                loss = self._step(batch)
                self.chunk = chunk
                bar.update(batch.tokens)
                if self.step % LOG_EVERY == 0:
                    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                    self._log(loss)
                if time.monotonic() - saved > SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _until_done(self, stream: Iterator[tuple[int, Batch]]) -> Iterator[tuple[int, Batch]]:
        while self.tokens < self.recipe.tokens:
            yield next(stream)

    def _step(self, batch: Batch) -> float:
        start = time.perf_counter()
        rate = schedule(self.recipe, self.tokens)
        loss = self.loss(self.net, batch)
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m d2f train", __doc__, "")
    parser.add_argument("model", choices=sorted(RECIPES), help="which embedded model to train")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where progress is kept")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="where the model folder goes")
    parser.add_argument(
        "--evaluate", type=int, default=200, help="held-out problems a task for the card (0: none)"
    )
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    for field in fields(Recipe):
        kind = field.type if field.type in (int, float) else str
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, help="overrides the recipe"
        )
    return parser.parse_args(argv)


@program("d2f train")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = {f.name: getattr(args, f.name) for f in fields(Recipe)}
    recipe = replace(RECIPES[args.model], **{k: v for k, v in chosen.items() if v is not None})
    folder = args.out / args.model
    if not (folder / "tokenizer.json").is_file():
        give_tokenizer(folder, recipe)
    tokenizer = Tokenizer(folder)
    run = Run(args.model, recipe, args.runs / args.model, tokenizer)
    run.train()
    save_model(run.net, folder, [tokenizer.end_id, tokenizer.pad_id])
    print(f"wrote {folder}")
    if args.evaluate:
        finish_card(run, folder, args.evaluate)
    return 0


def finish_card(run: Run, folder: Path, problems: int) -> None:
    """Evaluate the saved model and tell its story; a stage that starts from itself is added."""
    earlier = earlier_stages(folder) if run.recipe.init == run.name else []
    told = stage(asdict(run.recipe), run.tokens, run.seconds, run.folder / "log.jsonl")
    config = evaluation_config(run.name)
    scores = evaluate(load_model(folder), config, problems)
    write_card(folder, [*earlier, told], config, scores)
    for score in scores:
        print(f"{score.task}: {100 * score.accuracy:.1f} % of {score.problems}")


if __name__ == "__main__":
    sys.exit(main())
