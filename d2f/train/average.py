"""``python -m d2f.train.average NAME FOLDER…``: the mean of a model's weights after several stages.

Stages that start from one another's weights end at different places around the same minimum, and
their mean solves more than each of them (model soups, arXiv 2203.05482). Knows no training.
"""

from d2f.cli.program import program, starting

with starting():
    import sys
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

    from d2f.catalogue.pairs import EMBEDDED
    from d2f.checkpoints.load import load_model
    from d2f.checkpoints.save import save_model
    from d2f.cli.options import Parser
    from d2f.errors import InvalidInput
    from d2f.train.card import earlier_stages, evaluate, evaluation_config, mean_stage, write_card
    from d2f.train.recipes import RECIPES


def mean_weights(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each weight; ``ValueError`` for fewer than two models or differing shapes."""
    if len(states) < 2:
        raise InvalidInput(f"a mean needs two models or more, got {len(states)}")
    shapes = [{name: weight.shape for name, weight in state.items()} for state in states]
    if any(each != shapes[0] for each in shapes):
        raise InvalidInput("the models differ in shape: their weights have no mean")
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


@program("d2f train.average")
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m d2f.train.average", __doc__, "")
    parser.add_argument("model", choices=sorted(RECIPES), help="which embedded model is made")
    parser.add_argument("sources", nargs="+", help="model folders or names, a stage each")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="where the model folder is")
    parser.add_argument(
        "--evaluate", type=int, default=200, help="held-out problems a task for the card (0: none)"
    )
    args = parser.parse_args(argv)
    folder = args.out / args.model
    model = load_model(folder)  # of the same shape, and with the tokenizer of all
    mean = mean_weights([load_model(source).net.state_dict() for source in args.sources])
    model.net.load_state_dict(mean)
    save_model(model.net, folder, [model.tokenizer.end_id, model.tokenizer.pad_id])
    print(f"wrote {folder}")
    if args.evaluate:
        recipe = RECIPES[args.model]
        config = evaluation_config(recipe)
        stages = [*earlier_stages(folder), mean_stage(len(args.sources))]
        scores = evaluate(load_model(folder), recipe, config, args.evaluate)
        write_card(folder, stages, config, scores)
    return 0


if __name__ == "__main__":
    sys.exit(main())
