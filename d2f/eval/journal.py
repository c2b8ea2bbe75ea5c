"""Answers kept as they come, so that a run that was killed goes on at the problem it was at.

A line of JSON an answer, on the disk before the next one begins, a file a process. A line that a
kill cut short is dropped. Answers are found by all that they depend on, so that no changed
setting, model or machine ever takes an old one.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

from d2f.errors import InvalidInput
from d2f.eval.answers import Answer, Question
from d2f.strict_json import NoJson, from_json, to_json

FIELDS = {field.name for field in fields(Answer)}


def key_of(run: Mapping[str, Any], question: Question) -> str:
    """A short text for a question and all that its answer and figures depend on, ``run``."""
    return sha256(to_json([run, asdict(question)]).encode()).hexdigest()[:32]


class Journal:
    """The answers of a run in the making, in a folder of its own.

    Raises:
        InvalidInput: the folder cannot be written, or holds something else.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self._own = folder / f"{process}.jsonl"
        try:
            folder.mkdir(exist_ok=True)
            self.answers = {k: a for path in sorted(folder.glob("*.jsonl")) for k, a in _read(path)}
        except OSError as error:
            raise InvalidInput(f"{folder} cannot be used: {error.strerror}") from error

    def add(self, key: str, answer: Answer) -> None:
        """Keeps an answer; it is on the disk when this returns."""
        self.answers[key] = answer
        with self._own.open("ab") as file:
            file.write(to_json([key, asdict(answer)]).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Forgets all answers, once the result is written."""
        rmtree(self.folder)


def _read(path: Path) -> list[tuple[str, Answer]]:
    """A file's answers; a last line without an end is cut off."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        os.truncate(path, len(whole))
    return [_answer(line, f"{path}, line {n}") for n, line in enumerate(whole.splitlines(), 1)]


def _answer(line: bytes, place: str) -> tuple[str, Answer]:
    try:
        row = from_json(line)
    except NoJson:
        row = None
    if isinstance(row, list) and len(row) == 2 and isinstance(row[1], dict):
        if row[1].keys() == FIELDS:
            return str(row[0]), Answer(**row[1])
    raise InvalidInput(f"{place} holds no answer: remove its folder to begin anew")
