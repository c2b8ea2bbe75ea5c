"""Command line of the evaluation: ``python -m d2f eval --help``."""

from d2f.cli.program import program, starting

with starting():
    import argparse
    import os
    import sys
    from collections.abc import Sequence
    from dataclasses import asdict, replace
    from functools import partial
    from importlib.util import find_spec
    from pathlib import Path
    from typing import Any

    from d2f.checkpoints.load import load_model
    from d2f.checkpoints.resolve import resolve
    from d2f.cli.options import (
        Parser,
        add_diffusion_options,
        add_engine_options,
        add_set_option,
        chosen_options,
        given_diffusion,
        whole,
    )
    from d2f.cli.output import check_output, write_output
    from d2f.errors import InvalidInput
    from d2f.eval.chart import page
    from d2f.eval.journal import Journal
    from d2f.eval.plan import asked_tasks, lanes, limits, local_data
    from d2f.eval.protocol import OURS, PROTOCOLS, repository
    from d2f.eval.report import text_report
    from d2f.eval.share import sharing
    from d2f.memory import find_device
    from d2f.model import Model
    from d2f.policy import KINDS
    from d2f.run_options import RunOptions
    from d2f.strict_json import to_json
    from d2f.tuning import usual_dtype

PROGRAM = "python -m d2f eval"
DESCRIPTION = """\
Score decoders by EleutherAI's lm-evaluation-harness, speed beside accuracy: one problem at a time.
Writes one JSON file and prints its tables. A run that was cut short goes on where it was when the
same command is given again."""
EXAMPLES = """\
examples:
  python -m d2f eval --model mini-d2f --decoders d2f,ar --limit 50 --run-code
  python -m d2f eval --model mini-d2f --sweep tau_conf=0.5,0.7,0.9 --chart tradeoff.html
  python -m d2f eval --model d2f-llada-8b-instruct --protocol paper --tasks gsm8k --device cuda
  python -m d2f eval --model ./my-model --tasks gsm8k_cot --data gsm8k_cot=gsm8k_test.jsonl
  accelerate launch -m d2f eval --model d2f-dream-7b-base --tasks gsm8k_cot --device cuda

Exit status: 0 done, 2 bad input, 130 interrupted."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("--model", required=True, help="a model of the catalogue, a folder, or an id of the hub")
    add("--adapter", metavar="PLACE", help="a PEFT LoRA adapter to merge into it")
    add("--tasks", nargs="+", default=[], metavar="TASK", help="the harness's, or mini")
    add("--protocol", choices=PROTOCOLS, default=OURS, help="how problems are put (default: ours)")
    add(
        "--decoders",
        nargs="+",
        default=[],
        metavar="DECODER[@MODEL]",
        help=f"of {', '.join(KINDS)}; with another model than its pair's (default: the model's)",
    )
    add("--limit", action="append", default=[], metavar="[DECODER=]N", help="problems a task")
    add("--shots", type=whole, help="examples before each problem (default: the task's)")
    add("--metric", metavar="METRIC,FILTER", help="the headline's (default: the task's first)")
    add("--seed", type=whole, default=0, help="draws other problems of mini (default: 0)")
    add(
        "--data",
        action="append",
        default=[],
        metavar="TASK[:SPLIT]=FILE",
        help="JSON lines in place of the hub's data; may be repeated",
    )
    add("--run-code", action="store_true", help="tasks may run what is answered, in a sandbox")
    add_engine_options(parser)
    add_diffusion_options(parser, grid=False)
    add_set_option(parser)
    add(
        "--sweep",
        action="append",
        default=[],
        metavar="[DECODER.]SETTING=V1,V2,...",
        help="a lane more for each value of a setting; may be repeated",
    )
    add("--out", type=Path, default=Path("eval.json"), metavar="FILE", help="default: eval.json")
    add("--chart", type=Path, metavar="FILE", help="also draw the trade-off, as an HTML page")
    add("--no-samples", action="store_true", help="leave single answers out of the JSON")
    return parser.parse_args(argv)


def engine(args: argparse.Namespace) -> RunOptions:
    """How models run; of several processes each has a GPU of its own."""
    device = args.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    find_device(device)
    options = replace(chosen_options(args), device=device)
    if options.dtype != "auto":
        return options
    # Not the fastest: a score is not to depend on this machine's speed.
    return replace(options, dtype=usual_dtype(args.model, device))


def need_harness() -> None:
    """``InvalidInput`` where the optional extra is not installed."""
    if find_spec("lm_eval") is None:
        raise InvalidInput(
            "it needs the lm-evaluation-harness: pip install 'd2f[eval]', in a checkout "
            "pip install lm_eval==0.4.13"
        )


def load(args: argparse.Namespace, options: RunOptions, name: str) -> tuple[Model, list[Path]]:
    """A lane's model and its folders; the adapter is the asked one's."""
    asked = name == args.model
    adapter, diffusion = (args.adapter, given_diffusion(args)) if asked else (None, None)
    source = resolve(name, adapter)
    folders = [folder for folder in (source.folder, source.adapter) if folder is not None]
    return load_model(name, adapter=adapter, diffusion=diffusion, **asdict(options)), folders


def evaluate(args: argparse.Namespace) -> tuple[dict[str, Any], Journal] | None:
    """The result and the answers kept; None in all processes but the first.

    The cheapest checks come first, all of them before any model is loaded.
    """
    check_output("--out", args.out)
    check_output("--chart", args.chart)
    options = engine(args)
    asked, problems, data = asked_tasks(args), limits(args.limit), local_data(args.data)
    plan = {task: lanes(args, task, preset) for task, (_, preset) in asked.items()}
    need_harness()
    with starting():  # the harness takes seconds, too
        from d2f.eval import run
        from d2f.eval.tasks import Tasks
    most = max(problems.values()) if "" in problems else None
    source = Tasks(data=data, run_code=args.run_code, size=most, seed=args.seed)
    loaded = source.load(
        {
            name: preset.shots if preset and args.shots is None else args.shots
            for name, preset in asked.values()
        }
    )
    jobs = [
        run.Job(
            entry=entry,
            task=task,
            tasks=loaded[name],
            way=preset.way if preset else None,
            limit=problems.get(entry.decoder, problems.get("")),
            metric=args.metric,
        )
        for task, (name, preset) in asked.items()
        for entry in plan[task]
    ]
    with sharing(os.environ.get("WORLD_SIZE", "1") != "1") as share:
        journal = Journal(args.out.with_name(args.out.name + ".progress"), share.number)
        share.everyones(None)  # all have read the answers kept before any adds one
        done = run.run(jobs, partial(load, args, options), journal, share)
    about = {
        "model": args.model,
        "repository": repository(args.model),
        "protocol": args.protocol,
        "seed": args.seed,
        "dtype": options.dtype,
    }
    return None if share.number else (run.result(done, about, options.device), journal)


@program("d2f eval")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    found = evaluate(args)
    if found is None:
        return 0
    result, journal = found
    if args.no_samples:
        del result["samples"]
    write_output("--out", args.out, to_json(result, indent=1))
    journal.remove()
    if args.chart is not None:
        write_output("--chart", args.chart, page(result))
    print(text_report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
