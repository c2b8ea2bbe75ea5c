"""Tasks of the harness by name, with data of the hub or of local files.

What cannot be asked is refused here, before any model is loaded.
"""

import gzip
import logging
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import evaluate
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from d2f.errors import D2FError, InvalidInput, one_line
from d2f.eval import suites
from d2f.eval.code import CodeEval
from d2f.strict_json import from_json
from d2f.text import decoded

LOG = logging.getLogger(__name__)
HUB = (ConnectionError, FileNotFoundError)


class Tasks:
    """Where tasks come from.

    Args:
        data: local files by ``TASK`` or ``TASK:SPLIT``, as JSON lines.
        run_code: tasks may run what is answered.
        size, seed: how many problems of an embedded task are drawn, and which.
    """

    def __init__(
        self,
        *,
        data: Mapping[str, Path] | None = None,
        run_code: bool = False,
        size: int | None = None,
        seed: int = 0,
    ) -> None:
        self._data, self._run_code = dict(data or {}), run_code
        self._size, self._seed = size or suites.SIZE, seed

    def load(self, asked: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
        """The tasks of each name: one, or all of a group of the harness.

        Args:
            asked: examples before each problem, by name; None: as many as the task says.

        Raises:
            InvalidInput: an unknown task, data that cannot be had, a task that asks for anything
                but text, or that runs code and may not.
        """
        unused = {name.partition(":")[0] for name in self._data} - asked.keys()
        if unused:
            raise InvalidInput(f"--data is of tasks not asked here: {', '.join(sorted(unused))}")
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        return {name: self._load(name, shots) for name, shots in asked.items()}

    def _load(self, name: str, shots: int | None) -> dict[str, Any]:
        if suites.names(name):
            self._check_code(name, suites.runs_code(name))
            config = suites.config(name, self._seed, self._size)
            return {name: ConfigurableTask(config=config)}
        if name not in _manager().task_index:
            raise InvalidInput(f"no task {name!r}; 'lm_eval ls tasks' lists the harness's")
        with _told(name), _sandboxed():
            group = {"group": "asked", "task": [{"task": name, **self._changes(name, shots)}]}
            tasks: dict[str, Any] = _manager().load([group])["tasks"]
        for task in tasks.values():
            _check_kind(name, task)
            code = getattr(task, "UNSAFE_CODE", False)
            self._check_code(name, code)
            if code and not _in_sandbox(task):
                raise InvalidInput(f"task {name!r} runs code by other means than the sandbox")
            _set_shots(task, shots)
        return tasks

    def _check_code(self, name: str, runs: bool) -> None:
        if runs and not self._run_code:
            raise InvalidInput(
                f"task {name!r} runs the code that is answered: allow it with --run-code"
            )

    def _changes(self, name: str, shots: int | None) -> dict[str, Any]:
        """What local data changes in a task; a split that has no file is not there."""
        files = {key: path for key, path in self._data.items() if key.partition(":")[0] == name}
        if not files:
            return {}
        config = _manager().task_index[name].cfg or {}
        asked = config.get("test_split") or config.get("validation_split")
        examples = config.get("fewshot_split") or config.get("training_split")
        splits = {key.partition(":")[2] or asked: rows(path) for key, path in files.items()}
        shots = config.get("num_fewshot", 0) if shots is None else shots
        changes: dict[str, Any] = {
            "custom_dataset": lambda **about: {s: Dataset.from_list(r) for s, r in splits.items()}
        }
        if asked not in splits:
            raise InvalidInput(
                f"task {name!r} asks of split {asked!r}: --data {name}=FILE gives it"
            )
        if examples and examples not in splits:
            if shots:
                raise InvalidInput(
                    f"task {name!r} takes {shots} examples of split {examples!r}: give it with "
                    f"--data {name}:{examples}=FILE, or ask without examples: --shots 0"
                )
            changes |= {"fewshot_split": None, "training_split": None, "num_fewshot": 0}
        return changes


@cache
def _manager() -> TaskManager:
    """Reads the harness's thousands of files, which takes seconds."""
    return TaskManager()


def _in_sandbox(task: Any) -> bool:
    """Whether a task's metric is one that was loaded in :func:`_sandboxed`, now or before."""
    # The harness keeps a function, or its bound __call__.
    metrics = [getattr(each, "__self__", each) for each in task._metric_fn_list.values()]
    known = [value for each in metrics for value in getattr(each, "__globals__", {}).values()]
    return any(isinstance(value, CodeEval) for value in known)


def _check_kind(name: str, task: Any) -> None:
    if task.OUTPUT_TYPE != "generate_until":
        raise InvalidInput(
            f"task {name!r} compares probabilities ({task.OUTPUT_TYPE}), which these decoders do "
            "not tell: choose one that asks for text (generate_until)"
        )


def _set_shots(task: Any, shots: int | None) -> None:
    """As the harness's own command line does: what a task says to be without examples stays so."""
    own = task.get_config("num_fewshot")
    if shots is not None and own != 0:
        task.set_config(key="num_fewshot", value=shots)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, which may be packed by gzip.

    Raises:
        InvalidInput: it cannot be read, or holds anything else.
    """
    try:
        data = path.read_bytes()
        text = decoded(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, zlib.error, InvalidInput) as error:
        raise InvalidInput(f"--data: {path} cannot be read: {one_line(error)}") from error
    # Not splitlines: a JSON text may hold other line separators.
    lines = enumerate(text.split("\n"), 1)
    found = [_row(line, f"{path}, line {n}") for n, line in lines if line.strip()]
    if not found:
        raise InvalidInput(f"--data: {path} holds no problem")
    return found


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = from_json(line)
    except InvalidInput as error:
        raise InvalidInput(f"--data: {place}: {error}") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"--data: {place} must be a JSON object")
    return row


@contextmanager
def _sandboxed() -> Iterator[None]:
    """Tasks loaded meanwhile run generated code in the sandbox."""
    usual = evaluate.load
    evaluate.load = CodeEval().load
    try:
        yield
    finally:
        evaluate.load = usual


@contextmanager
def _told(name: str) -> Iterator[None]:
    """The harness at work on a task's files and data; whatever it raises is told."""
    try:
        yield
    except D2FError:
        raise
    except HUB as error:
        raise InvalidInput(
            f"the data of task {name!r} cannot be had from the hub ({one_line(error)}); "
            f"give a local file: --data {name}=FILE"
        ) from error
    # Deliberately all: tasks are code and settings of many hands.
    except Exception as error:
        LOG.warning("task %s cannot be loaded", name, exc_info=True)
        raise InvalidInput(f"task {name!r} cannot be loaded: {one_line(error)}") from error
