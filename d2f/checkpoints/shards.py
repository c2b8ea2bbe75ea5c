"""Files of a model folder, read as little as can be: JSON, and the headers of safetensors shards.

Knows no architecture. What is missing, cut short or there twice is an error with the way out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from d2f.errors import LoadError

FLOATS = {"F64", "F32", "F16", "BF16"}
INDEX = "model.safetensors.index.json"
AGAIN = "download it again; a download by name goes on where it stopped"


@dataclass(frozen=True)
class Stored:
    """A weight in a shard, not read yet."""

    path: Path
    shape: tuple[int, ...]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object."""
    if not path.is_file():
        raise LoadError(f"{path} is missing")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{path} is no valid JSON ({error})") from error


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by key, of a safetensors file whose length is what its header says.

    Raises:
        LoadError: it is missing, cut short or no safetensors file; a weight is not of floats.
    """
    if not path.is_file():
        raise LoadError(f"{path} is missing: {AGAIN}")
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            kinds = {key: value.get_dtype() for key, value in slices.items()}
            shapes = {key: tuple(value.get_shape()) for key, value in slices.items()}
    except SafetensorError as error:
        raise LoadError(f"{path} is cut short or damaged ({error}): {AGAIN}") from error
    odd = [f"{key} is {kind}" for key, kind in kinds.items() if kind not in FLOATS]
    if odd:
        raise LoadError(f"{path}: weights must be floats of 16 bits or more, but {odd[0]}")
    return shapes


def weight_map(folder: Path) -> dict[str, str]:
    """The shard of every key, as the folder's index tells; empty where there is no index."""
    index = folder / INDEX
    return read_json(index)["weight_map"] if index.is_file() else {}


def stored_weights(folder: Path) -> dict[str, Stored]:
    """Every weight of a model folder by key, from the headers of all its shards.

    Raises:
        LoadError: as :func:`tensor_shapes`; a key stands in two shards, or not
            in the one that the index names.
    """
    index, homes = folder / INDEX, weight_map(folder)
    weights: dict[str, Stored] = {}
    for name in sorted(set(homes.values())) or ["model.safetensors"]:
        for key, shape in tensor_shapes(folder / name).items():
            if key in weights:
                raise LoadError(f"{key} stands in both {weights[key].path} and {folder / name}")
            weights[key] = Stored(folder / name, shape)
    for key, name in homes.items():
        if key not in weights or weights[key].path.name != name:
            raise LoadError(f"{index} says that {key} is in {name}, and it is not: {AGAIN}")
    return weights
