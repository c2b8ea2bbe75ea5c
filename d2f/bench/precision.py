"""What bfloat16 costs the embedded models of their accuracy: ``python -m d2f.bench.precision``.

Writes :data:`d2f.tuning.PRECISION`, by which a model is run in bfloat16 or never is. To be run
again whenever their weights change: figures of other weights do not count.
"""

import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from tqdm import tqdm

from d2f.bench.suite import Lane, held_out, solve
from d2f.catalogue.pairs import PAIRS, RACING
from d2f.checkpoints.load import load_model
from d2f.checkpoints.resolve import find_folder
from d2f.cli.options import Parser, positive
from d2f.cli.output import check_output, write_output
from d2f.cli.program import program
from d2f.machine import machine, versions
from d2f.strict_json import to_json
from d2f.tasks import TASKS
from d2f.tuning import DTYPES, PRECISION, fingerprint


def measure(problems: int, seed: int) -> dict[str, Any]:
    """The share of problems that each model solves in each dtype, all tasks together."""
    asked = [each for own in held_out(list(TASKS), problems, seed).values() for each in own]
    models = {}
    for decoder in RACING:
        name, config = PAIRS["mini"].lanes[decoder]
        accuracy = {}
        for dtype in DTYPES:
            lane = Lane(decoder, load_model(name, dtype=dtype), config, problems)
            solved = [solve(lane, each).correct for each in tqdm(asked, desc=f"{name} {dtype}")]
            accuracy[dtype] = fmean(solved)
        models[name] = {"fingerprint": fingerprint(find_folder(name)), "accuracy": accuracy}
    return {
        "seed": seed,
        "problems": len(asked),
        "machine": machine(),
        "versions": versions(),
        "models": models,
    }


@program("d2f.bench.precision")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = Parser("python -m d2f.bench.precision", (__doc__ or "").partition("\n\n")[0], "")
    parser.add_argument("--problems", type=positive, default=50, help="a task (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="draws other problems (default: 0)")
    args = parser.parse_args(argv)
    check_output("the result", PRECISION)
    write_output("the result", PRECISION, to_json(measure(args.problems, args.seed), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
