"""``d2f distil``: a pre-trained diffusion model becomes a D2F model, by an adapter of its own.

Reads chats from a file, masks their answers block by block, and teaches the model with LoRA to tell
from each block and what lies before it what it would have told from the whole answer. Stops and
resumes: progress is saved every few minutes, and picked up by the same command. The result is a
PEFT folder for load_model(base, adapter=...).
"""

from d2f.cli.program import program, starting

with starting():
    import argparse
    import hashlib
    import random
    import sys
    from collections.abc import Sequence
    from dataclasses import dataclass, field, fields
    from functools import partial
    from pathlib import Path
    from typing import Any

    import torch

    from d2f.checkpoints.config_json import model_config
    from d2f.checkpoints.load import load_model, load_tokenizer
    from d2f.checkpoints.resolve import resolve
    from d2f.checkpoints.weight_names import LAYOUTS, Layout
    from d2f.cli.options import DTYPE_NAMES, Parser
    from d2f.errors import InvalidInput
    from d2f.model import Model
    from d2f.model_files import read_json
    from d2f.strict_json import to_json
    from d2f.train.adapter import Adapter, needed_peft
    from d2f.train.alignment import alignment_loss
    from d2f.train.chats import read_chats
    from d2f.train.data import CHUNK, Example, Stream
    from d2f.train.laws import LAWS, WholeAnswer
    from d2f.train.loop import RowMaker, Run, Task
    from d2f.train.noise import Noise
    from d2f.train.recipes import DIRECTIONS, Schedule, require

WINDOWS = "windows"
EXAMPLES = """\
examples:
  python -m d2f distil --base GSAI-ML/LLaDA-8B-Instruct --data chats.jsonl --out my-adapter \\
      --device cuda --dtype bfloat16 --recompute
  python -m d2f distil --base ./my-dllm --data chats.jsonl --out my-adapter --law windows
  python -m d2f generate --model GSAI-ML/LLaDA-8B-Instruct --adapter my-adapter --prompt "Hello"
"""


def _told(default: Any, text: str, **how: Any) -> Any:
    """A field that becomes an option of the command line, with its help."""
    return field(default=default, metadata={"help": text, **how})


@dataclass(frozen=True, kw_only=True)
class Distillation(Schedule):
    """What decides the outcome of a run. ``data`` is a digest of the examples."""

    base: str
    data: str
    tokens: int = _told(20_000_000, "tokens to train on")
    learning_rate: float = _told(1e-5, "its highest value")
    batch_tokens: int = _told(8192, "tokens a step")
    law: str = _told(
        WINDOWS,
        "mask ratios: windows of noisy blocks behind clean ones, as decoding meets them; or the "
        "whole answer noisy, as the paper or as its released code has it",
        choices=(WINDOWS, *LAWS),
    )
    direction: str = _told(
        "forward",
        "KL(teacher || student), as released, or reverse, as the paper writes",
        choices=DIRECTIONS,
    )
    teacher_share: float = _told(1.0, "of the loss; the rest is cross-entropy on the data")
    inverse: int = _told(0, "1: a label weighs 1 / mask ratio, as released", choices=(0, 1))
    block_size: int = _told(32, "tokens a block")
    max_window: int = _told(4, "most blocks a window")
    padding: int = _told(1, "blocks of end tokens behind an answer, with the paper's laws")
    length: int = _told(1024, "longest example, in tokens")
    rank: int = _told(32, "of the adapter's matrices")
    alpha: int = _told(32, "its product is multiplied by alpha / rank")
    dropout: float = _told(0.1, "of the adapter's input")
    targets: str = _told("", "the base's products to change (none: query, key, value, output)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("length", "rank", "alpha"):
            require(getattr(self, name) >= 1, name, "at least 1", self)
        require(self.padding >= 0, "padding", "at least 0", self)
        require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m d2f distil", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--base", required=True, help="the diffusion model: a catalogue name, a folder, a hub id")
    add("--data", type=Path, required=True, help="chats, a line each, as JSON (docs/training.md)")
    add("--out", type=Path, required=True, help="where the adapter goes")
    add("--runs", type=Path, help="where progress is kept (default: progress, in --out)")
    add("--device", default="cpu", help="where it trains: cpu (default), cuda, …")
    add("--dtype", choices=DTYPE_NAMES, default="float32", help="of the base model's weights")
    add("--recompute", action="store_true", help="keep less for the gradient, and compute it again")
    add("--workers", type=int, choices=(0, 1), default=0, help="1: a process makes the batches")
    add("--threads", type=int, help="torch threads (default: torch's own choice)")
    for each in fields(Distillation):
        if each.name not in ("base", "data"):
            add(
                f"--{each.name.replace('_', '-')}",
                type=type(each.default),
                default=each.default,
                choices=each.metadata.get("choices"),
                help=f"{each.metadata.get('help', 'of the optimizer')} (default: %(default)s)",
            )
    return parser.parse_args(argv)


@dataclass(frozen=True)
class FromFile:
    """Examples of a file in chunks, in a new order each time through. Picklable, for a worker."""

    examples: list[Example]
    seed: int

    def __call__(self, chunk: int) -> list[Example]:
        return [self._at(place) for place in range(chunk * CHUNK, (chunk + 1) * CHUNK)]

    def _at(self, place: int) -> Example:
        epoch, index = divmod(place, len(self.examples))
        return self.examples[self._order(epoch)[index]]

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self.examples)))
        random.Random(f"{self.seed}:{epoch}").shuffle(order)
        return order


def targets_of(recipe: Distillation, layout: Layout) -> list[str]:
    """Endings of published names: those that were named, or the paper's four."""
    if recipe.targets:
        return recipe.targets.replace(",", " ").split()
    parts = layout.parts["self_attn.qkv_proj"] + layout.parts["self_attn.o_proj"]
    return [name.rpartition(".")[2] for name in parts]


def row_maker(recipe: Distillation, model: Model) -> RowMaker:
    """What the recipe's law makes of an example."""
    mask_id, end_id = model.config.mask_id, model.tokenizer.end_id
    assert mask_id is not None
    size, length = recipe.block_size, recipe.length
    if recipe.law == WINDOWS:
        return Noise(mask_id, end_id, size, recipe.max_window, length).block_row
    inverse = bool(recipe.inverse)
    return WholeAnswer(recipe.law, mask_id, end_id, size, recipe.padding, length, inverse)


def digest(examples: list[Example]) -> str:
    """Tells other examples apart."""
    text = to_json([[each.prompt, each.answer] for each in examples])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def diffusion_model(args: argparse.Namespace) -> tuple[Model, Layout]:
    """The base model, and how its weights are called.

    Raises:
        InvalidInput: it is no diffusion model.
    """
    raw = read_json(resolve(args.base).folder / "config.json")
    shape = model_config(raw)
    if shape.causal or shape.mask_id is None:
        raise InvalidInput(
            f"{args.base} is an autoregressive model, and has no answer of its own to masked text: "
            "name a diffusion model, such as LLaDA or Dream"
        )
    model = load_model(args.base, device=args.device, dtype=args.dtype)
    return model, LAYOUTS[raw["model_type"]]


def make_task(
    recipe: Distillation, model: Model, adapter: Adapter, examples: list[Example], recompute: bool
) -> Task:
    """The adapter's matrices, taught by the model without them."""
    matrices = [weight for weight in model.net.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        matrices, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    source, rows = FromFile(examples, recipe.seed), row_maker(recipe, model)
    loss = partial(
        alignment_loss,
        teacher=adapter.off,
        share=recipe.teacher_share,
        direction=recipe.direction,
        recompute=recompute,
    )
    return Task(
        model.net,
        loss,
        [optimizer],
        lambda place: Stream(recipe.seed, place, recipe.batch_tokens, source, rows),
        adapter.state,
    )


@program("d2f distil")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = {each.name: getattr(args, each.name) for each in fields(Distillation)}
    Distillation(**chosen | {"data": ""})  # refuses settings before a model is read
    needed_peft()
    tokenizer = load_tokenizer(args.base)
    examples, skipped = read_chats(args.data, tokenizer, args.length)
    print(f"{len(examples):,} answers of {args.data}", *skipped.told(), sep="\n", file=sys.stderr)
    recipe = Distillation(**chosen | {"data": digest(examples)})
    model, layout = diffusion_model(args)
    torch.manual_seed(recipe.seed)
    adapter = Adapter(
        model.net.train(),
        layout,
        targets_of(recipe, layout),
        rank=recipe.rank,
        alpha=recipe.alpha,
        dropout=recipe.dropout,
        base=args.base,
    )
    task = make_task(recipe, model, adapter, examples, args.recompute)
    run = Run("adapter", recipe, args.runs or args.out / "progress", task, args.workers)
    run.train()
    adapter.save(args.out)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
