"""JSON files of a model folder or an adapter, read into typed fields.

Folders come from strangers: whatever one of these files holds is told in one line, as LoadError.
Knows no file by name.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from d2f.errors import InvalidInput, LoadError, one_line
from d2f.strict_json import from_json

# Far above any index or configuration that is published; tokenizers are not read here.
MAX_BYTES = 2**26


class Fields(BaseModel):
    """The fields of a JSON object that matter here, each of its exact type; others may be there."""

    model_config = ConfigDict(strict=True, frozen=True, protected_namespaces=())


Kind = TypeVar("Kind", bound=Fields)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object; in UTF-8, or in what the mark at its start says.

    Raises:
        LoadError: it is missing, cannot be read, or is something else.
    """
    with reading(path):
        if not path.is_file():
            raise LoadError(f"{path} is missing")
        if path.stat().st_size > MAX_BYTES:
            raise LoadError(f"{path} is larger than {MAX_BYTES // 2**20} MiB")
        data = path.read_bytes()
    try:
        value = from_json(data)
    except InvalidInput as error:
        raise LoadError(f"{path} is no valid JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise LoadError(f"{path} must hold an object, not {one_line(repr(value))}")
    return value


def read_fields(kind: type[Kind], raw: Mapping[str, Any], what: str) -> Kind:
    """The fields of an object; ``what`` it is begins the message of a ``LoadError``."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise LoadError(one_line(f"{what}{_first_problem(error)}", 400)) from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    # Of a field that may be of several types, pydantic names the type it tried as well.
    path = [str(part) for part in first["loc"] if part not in ("str", "bool", "int")]
    field = one_line(".".join(path), 100)
    if first["input"] is None or first["type"] == "missing":
        return f" names no {field}"
    if first["type"] == "extra_forbidden":
        return f": {field} is not supported"
    problem = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f": {field} {problem}, got {one_line(repr(first['input']), 100)}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A file that the system does not let us read is a ``LoadError``."""
    try:
        yield
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror or one_line(error)}") from error
