"""``python -m d2f train NAME``: trains one embedded model, from data to model folder.

Stops and resumes: progress is saved every few minutes to ``runs/NAME`` and picked up by the same
command. Knows no decoding; what a model is worth is measured by ``python -m d2f bench``.
"""

from d2f.cli.program import program, starting

with starting():
    import argparse
    import sys
    from collections.abc import Sequence
    from dataclasses import asdict, fields, replace
    from pathlib import Path

    import torch

    from d2f.catalogue.pairs import EMBEDDED
    from d2f.checkpoints.load import load_model
    from d2f.checkpoints.save import save_model
    from d2f.cli.options import Parser
    from d2f.tokenizer import Tokenizer
    from d2f.train.card import earlier_stages, evaluate, evaluation_config, stage, write_card
    from d2f.train.loop import Run, embedded_task
    from d2f.train.recipes import RECIPES, Recipe
    from d2f.train.start import build, give_tokenizer


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("python -m d2f train", __doc__, "")
    parser.add_argument("model", choices=sorted(RECIPES), help="which embedded model to train")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where progress is kept")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="where the model folder goes")
    parser.add_argument(
        "--evaluate", type=int, default=200, help="held-out problems a task for the card (0: none)"
    )
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", help="where it trains: cpu (default), cuda, …")
    parser.add_argument(
        "--workers", type=int, choices=(0, 1), default=0, help="1: a process makes the batches"
    )
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
    assert tokenizer.mask_id is not None
    net = build(recipe, tokenizer.mask_id, folder).to(args.device)
    task = embedded_task(recipe, tokenizer, net)
    run = Run(args.model, recipe, args.runs / args.model, task, args.workers)
    run.train()
    save_model(run.net, folder, [tokenizer.end_id, tokenizer.pad_id])
    print(f"wrote {folder}")
    if args.evaluate:
        finish_card(run, recipe, folder, args.evaluate)
    return 0


def finish_card(run: Run, recipe: Recipe, folder: Path, problems: int) -> None:
    """Evaluate the saved model and tell its story; a stage that starts from itself is added."""
    earlier = earlier_stages(folder) if recipe.init == run.name else []
    told = stage(asdict(recipe), run.tokens, run.seconds, run.folder / "log.jsonl")
    config = evaluation_config(recipe)
    scores = evaluate(load_model(folder), recipe, config, problems)
    write_card(folder, [*earlier, told], config, scores)
    for score in scores:
        print(f"{score.task}: {100 * score.accuracy:.1f} % of {score.problems}")


if __name__ == "__main__":
    sys.exit(main())
