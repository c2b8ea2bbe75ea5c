"""A run: every lane asks its tasks in turn, a model in memory at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2f.bench.lanes import Entry
from d2f.bench.suite import ALL
from d2f.bench.tables import told
from d2f.config import config_to_dict
from d2f.decode.common import how_it_runs
from d2f.eval.answers import Answer, Question, Way, answer, get_ready
from d2f.eval.figures import Marked, aups, lane_row
from d2f.eval.harness import Decoders, Scores, scored
from d2f.eval.journal import Journal, key_of
from d2f.eval.share import Share
from d2f.machine import machine, versions
from d2f.model import Model

# A model by its name, with the folders that its files are in.
Load = Callable[[str], tuple[Model, Sequence[Path]]]
Files = list[tuple[str, int, int]]


@dataclass(frozen=True, eq=False)
class Job:
    """A lane with what it is asked.

    Attributes:
        task: what the result calls it; ``tasks`` are the harness's, by name.
        way: how it is put to the model; None: by its chat template, if it has one.
        limit: of the problems of each task; None: all.
        metric: the headline's "METRIC,FILTER"; None: the first.
    """

    entry: Entry
    task: str
    tasks: Mapping[str, Any]
    way: Way | None
    limit: int | None
    metric: str | None


@dataclass(frozen=True, eq=False)
class Done:
    """A job with its answers, marked, and its scores."""

    job: Job
    model: str
    marked: list[Marked]
    scores: Scores
    runs: dict[str, str]


def run(jobs: Sequence[Job], load: Load, journal: Journal, share: Share) -> list[Done]:
    """Does all jobs, those of one model behind each other; the results are in the jobs' order."""
    done: dict[int, Done] = {}
    for name in dict.fromkeys(job.entry.model for job in jobs):
        model, folders = load(name)
        files = _files(folders)
        for number, job in enumerate(jobs):
            if job.entry.model == name:
                done[number] = _do(job, model, files, journal, share)
        del model  # before the next is loaded
    return [done[number] for number in range(len(jobs))]


def _do(job: Job, model: Model, files: Files, journal: Journal, share: Share) -> Done:
    way = job.way or Way(chat=model.tokenizer.has_template)
    about = {**_about(job, model, way), "files": files}

    def ask(questions: Sequence[Question]) -> list[Answer]:
        words = f"{told(_names(job, model), [_names(job, model)])}, {job.task}"
        return _answers(questions, model, job.entry, way, about, journal, share, words)

    asked = Decoders(model.tokenizer, ask)
    scores = scored(asked, job.tasks, job.limit, way.chat, job.metric)
    marked = [Marked(each, scores.right[each.task, each.problem]) for each in asked.answers]
    return Done(job, model.name, marked, scores, how_it_runs(model, job.entry.config))


def _names(job: Job, model: Model) -> dict[str, Any]:
    config = config_to_dict(job.entry.config)
    return {"decoder": job.entry.decoder, "model": model.name, "config": config}


def _about(job: Job, model: Model, way: Way) -> dict[str, Any]:
    """All that an answer and its figures depend on, beside the question."""
    return {
        **_names(job, model),
        "way": asdict(way),
        "dtype": model.dtype,
        "machine": machine(str(model.device)),
        "versions": versions(),
        "runs": how_it_runs(model, job.entry.config),
    }


def _files(folders: Sequence[Path]) -> Files:
    """A model's files as they are now: another training gives others."""
    paths = sorted(path for folder in folders for path in folder.iterdir() if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _answers(
    questions: Sequence[Question],
    model: Model,
    entry: Entry,
    way: Way,
    about: Mapping[str, Any],
    journal: Journal,
    share: Share,
    words: str,
) -> list[Answer]:
    """Answers of all processes, in order; each process computes its share of what is missing."""
    keys = [key_of(about, question) for question in questions]
    missing = [number for number, key in enumerate(keys) if key not in journal.answers]
    # Process 0 knows what is missing; the others may not see its disk.
    missing = share.first_says(missing)
    mine = share.mine(missing)
    if mine:
        get_ready(model, entry.config, way, [questions[number] for number in mine])
    for number in tqdm(mine, desc=words, unit="answer", disable=share.number > 0):
        if keys[number] not in journal.answers:
            journal.add(keys[number], answer(model, entry.config, way, questions[number]))
    known = set(range(len(keys))) - set(missing) if share.number == 0 else set()
    own = {number: journal.answers[keys[number]] for number in [*known, *mine]}
    every = {number: each for part in share.everyones(own) for number, each in part.items()}
    return [every[number] for number in range(len(keys))]


def rows_of(done: Sequence[Done], tasks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each lane and task, then one for each lane over all of its tasks."""
    for each in done:
        row = lane_row(each.job.entry, each.model, each.job.task, each.marked)
        yield {**row, "scores": each.scores.every}
    if len(tasks) < 2:
        return
    lanes: dict[tuple[Entry, str], list[Done]] = {}
    for each in done:
        lanes.setdefault((each.job.entry, each.model), []).append(each)
    for (entry, model), own in lanes.items():
        # A lane whose settings are another task's is another lane.
        if len(own) == len(tasks):
            marked = [marked for one in own for marked in one.marked]
            yield {**lane_row(entry, model, ALL, marked), "scores": {}}


def samples(done: Sequence[Done]) -> list[dict[str, Any]]:
    """Every answer with its lane, its score and its figures."""
    return [
        {
            "decoder": each.job.entry.decoder,
            "model": each.model,
            "config": config_to_dict(each.job.entry.config),
            "right": marked.right,
            **asdict(marked.answer),
        }
        for each in done
        for marked in each.marked
    ]


def result(done: Sequence[Done], about: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Everything an evaluation has to say, in JSON values."""
    tasks = list(dict.fromkeys(each.job.task for each in done))
    rows = list(rows_of(done, tasks))
    return {
        **about,
        "tasks": tasks,
        "metrics": {each.job.task: each.scores.metric for each in done},
        "machine": machine(device),
        "versions": versions("lm_eval"),
        "runs": {each.job.entry.decoder: each.runs for each in done},
        "results": rows,
        "aup": aups(rows),
        "samples": samples(done),
    }
