"""Recorded races that ship with the page, in ``assets/traces``; ``python -m app.gallery`` records.

Knows nothing of gradio.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads

from itertools import islice
from pathlib import Path

from d2f.catalogue.pairs import PAIRS, Pair
from d2f.places import ASSETS
from d2f.tasks import TASKS, Problem, draw

from .conversation import Conversation
from .lanes.lane import Host, Question, pair_lanes
from .prompts import Known, verdict
from .race import merge
from .recordings.recording import Recording, record

TRACES = ASSETS / "traces"
SEED = 23  # other problems than the page's examples


def gallery(folder: Path = TRACES) -> list[Recording]:
    """The recordings of a folder, by file name; a damaged one raises ``RecordingError``."""
    paths = sorted(folder.glob("*.json"))
    return [Recording.from_json(path.read_text(encoding="utf-8")) for path in paths]


def recorded_race(pair: Pair, problem: Problem, host: Host) -> Recording:
    """One race on a problem, as it came out: nothing is chosen or repeated."""
    question = Question(pair, problem.prompt, pair.config, Conversation(pair.name))
    lanes = pair_lanes(question, host)
    for _ in merge(lanes):
        pass
    names = [lane.name for lane in lanes]
    judged = verdict(Known(problem), names, [lane.trace.text for lane in lanes], trained=names)
    return record(problem.prompt, lanes, judged)


def main(folder: Path = TRACES) -> None:
    """Record the first held-out problem of every task with the embedded pair."""
    folder.mkdir(parents=True, exist_ok=True)
    host = Host()
    for number, task in enumerate(TASKS):
        (problem,) = islice(draw(task, "test", SEED), 1)
        race = recorded_race(PAIRS["mini"], problem, host)
        path = folder / f"{number}-{task}.json"
        path.write_text(race.to_json(), encoding="utf-8")
        print(f"{path.name}: {race.verdict}")


if __name__ == "__main__":
    main()
