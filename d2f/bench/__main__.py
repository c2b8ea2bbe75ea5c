"""Command line of the benchmark: ``python -m d2f bench --help``."""

from d2f.cli.program import calibrations, program, starting

with starting():
    import argparse
    import sys
    from collections.abc import Mapping, Sequence
    from dataclasses import asdict
    from pathlib import Path
    from typing import Any

    from tqdm import tqdm

    from d2f.bench import shape_suite
    from d2f.bench.lanes import entries, swept
    from d2f.bench.report import text_report
    from d2f.bench.suite import (
        Lane,
        Outcome,
        answers,
        check_configs,
        compile_ahead,
        held_out,
        ratios,
        rows,
        schedule,
        warm_up,
    )
    from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS
    from d2f.cli.options import (
        Parser,
        add_engine_options,
        add_set_option,
        chosen_options,
        positive,
        whole,
    )
    from d2f.cli.output import check_output, write_output
    from d2f.config import CONFIGS, DecodeConfig, VanillaConfig
    from d2f.decode.common import how_it_runs
    from d2f.machine import machine, versions
    from d2f.strict_json import to_json
    from d2f.tasks import TALK, TASKS, Problem
    from d2f.tuning import Tuner, load_tuned

# Held-out problems by task.
Asked = Mapping[str, Sequence[Problem]]
PROGRAM = "python -m d2f bench"
DESCRIPTION = """\
Measure D2F against its baselines: the same held-out problems for every decoder, taken in turns
within one run, greedy, one at a time, after a warm-up. Prints a table, then one line of JSON.
Speed is tokens up to and including the first stop token over the seconds inside the decoder."""
EXAMPLES = """\
examples:
  python -m d2f bench --suite mini
  python -m d2f bench --decoders d2f ar --tasks gsm-mini sudoku-mini --problems 200 --seed 3
  python -m d2f bench --decoders d2f ar --set d2f.tau_conf=0.85 --set d2f.block_size=8
  python -m d2f bench --decoders d2f ar --sweep d2f.tau_conf=0.5,0.7,0.95 --problems 20
  python -m d2f bench --decoders d2f --model d2f=./runs/my-model --json > result.json
  python -m d2f bench --suite talk --decoders ar --model ar=./runs/talk-ar --tasks talk-facts

The vanilla decoder runs hundreds of full forwards a problem, about half a minute on a laptop, so it
and Fast-dLLM take fewer problems than the others; table and JSON say how many."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    suite = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    suite.add_argument("--suite")
    if suite.parse_known_args(argv)[0].suite == "shape":
        return shape_suite.parse(argv)
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    suites = [*(PAIRS | PUBLISHED_PAIRS), "talk", "shape"]
    add(
        "--suite",
        choices=suites,
        default="mini",
        help="which models (default: mini); talk: free English, for models that are named by "
        "--model; shape: steps of a network without weights, with options of its own "
        "(--suite shape --help)",
    )
    add("--tasks", nargs="+", choices=[*TASKS, *TALK], help="default: all of the suite")
    add("--problems", type=positive, default=50, help="problems a task (default: 50)")
    add("--seed", type=whole, default=0, help="draws other held-out problems (default: 0)")
    add("--decoders", nargs="+", choices=CONFIGS, help="default: all that the suite has")
    add(
        "--vanilla-problems",
        type=positive,
        default=2,
        metavar="N",
        help="problems a task for the slow decoders of whole canvases (default: 2)",
    )
    add_engine_options(parser)
    add_set_option(parser)
    add(
        "--model",
        action="append",
        default=[],
        metavar="DECODER=MODEL",
        help="use another model or folder for one decoder; may be repeated",
    )
    add(
        "--sweep",
        action="append",
        default=[],
        metavar="DECODER.SETTING=V1,V2,...",
        help="a lane more for each value of a setting; may be repeated",
    )
    add("--json", action="store_true", help="print nothing but the line of JSON")
    add("--out", type=Path, metavar="FILE", help="also write the JSON, indented, to a file")
    args = parser.parse_args(argv)
    args.tasks = args.tasks or list(TALK if args.suite == "talk" else TASKS)
    return args


def make_lanes(args: argparse.Namespace) -> list[Lane]:
    """The suite's lanes with what the command line changes; ``ValueError`` for what cannot be."""
    known = (PAIRS | PUBLISHED_PAIRS).get(args.suite, PAIRS["mini"]).lanes
    base = entries(known, args.decoders or list(known), args.model, args.set)
    check_configs({entry.decoder: entry.config for entry in base})
    every = [*base, *swept(base, args.sweep)]
    engine, tuner = chosen_options(args), Tuner(calibrations(), args.recalibrate)
    models = {name: load_tuned(name, engine, tuner) for name in {e.model: None for e in every}}
    return [Lane(e.decoder, models[e.model], e.config, problems_of(e.config, args)) for e in every]


def problems_of(config: DecodeConfig, args: argparse.Namespace) -> int:
    """How many problems of a task a lane takes."""
    count: int = args.problems
    if isinstance(config, VanillaConfig):
        count = args.vanilla_problems
    return count


def get_ready(lanes: Sequence[Lane], asked: Asked, seed: int) -> None:
    """Compile and warm up; progress goes to stderr."""
    for lane in tqdm(lanes, desc="warm-up", unit="lane"):
        compile_ahead(lane, asked)
        warm_up(lane, seed)


def measure(lanes: Sequence[Lane], asked: Asked) -> list[Outcome]:
    """Run the whole schedule; progress goes to stderr."""
    turns = list(schedule(lanes, asked))
    race = tqdm(turns, desc="race", unit="problem")
    return [outcome for lane, problem in race for outcome in answers(lane, problem)]


def run(args: argparse.Namespace, lanes: Sequence[Lane], asked: Asked) -> dict[str, Any]:
    """Everything the benchmark has to say, in JSON values."""
    table = rows(lanes, measure(lanes, asked))
    return {
        "suite": args.suite,
        "seed": args.seed,
        "dtype": " and ".join(dict.fromkeys(lane.model.dtype for lane in lanes)),
        "machine": machine(args.device),
        "versions": versions(),
        "timed": {
            lane.decoder: asdict(lane.model.tuned) for lane in lanes if lane.model.tuned is not None
        },
        "runs": {lane.decoder: how_it_runs(lane.model, lane.config) for lane in lanes},
        "results": [asdict(row) for row in table],
        "ratios": ratios(table),
    }


@program("d2f bench")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.suite == "shape":
        return shape_suite.main(args)
    check_output("--out", args.out)
    lanes = make_lanes(args)
    asked = held_out(args.tasks, max(lane.problems for lane in lanes), args.seed)
    # What cannot be compiled shows here.
    get_ready(lanes, asked, args.seed)
    result = run(args, lanes, asked)
    if args.out is not None:  # first: it stays when standard output's reader has gone
        write_output("--out", args.out, to_json(result, indent=1))
    if not args.json:
        print(text_report(result))
    print(to_json(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
