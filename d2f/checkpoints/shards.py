"""Weights of a model folder by the headers of its safetensors shards, which are all that is read.

Knows no architecture. What is missing, cut short or there twice is an error with the way out.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors import SafetensorError, safe_open

from d2f.errors import LoadError, one_line
from d2f.model_files import Fields, read_fields, read_json, reading

FLOATS = {"F64", "F32", "F16", "BF16"}
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
AGAIN = "download it again; a download by name goes on where it stopped"
# Weights as other programs store them. Files of pickle can run code when they are opened.
OTHER_KINDS = {".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack"}
CONVERT = "convert it once, by from_pretrained and save_pretrained of transformers or peft"
# What a model computes by itself and older releases of transformers saved all the same: angles of
# the rotary embedding, causal masks, position numbers. Every loader drops them.
COMPUTED = re.compile(
    r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|(self_)?attn\.bias|masked_bias|position_ids)"
)


@dataclass(frozen=True)
class Stored:
    """A weight in a shard, not read yet."""

    path: Path
    shape: tuple[int, ...]


class _Index(Fields):
    """A shard's name is that of a file beside the index: nothing outside the folder is opened."""

    weight_map: dict[
        str, Annotated[str, Field(pattern=r"^[^/\\:\x00-\x1f]+\.safetensors$", max_length=255)]
    ]


@contextmanager
def open_shard(path: Path) -> Iterator[Any]:
    """A safetensors file to read from.

    Raises:
        LoadError: it is missing, cut short or no safetensors file.
    """
    try:
        with reading(path):
            if not path.is_file():
                raise LoadError(_missing(path))
            with safe_open(path, framework="pt") as file:
                yield file
    except SafetensorError as error:
        raise LoadError(f"{path} is cut short or damaged ({one_line(error)}): {AGAIN}") from error


def _missing(path: Path) -> str:
    """What to do about a file of weights that is not there."""
    folder = path.parent
    names = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    if any(name.endswith(".safetensors") or name == INDEX for name in names):
        return f"{path} is missing: {AGAIN}"
    others = [name for name in names if Path(name).suffix in OTHER_KINDS]
    if others:
        held = f"{folder} holds {one_line(others[0])} and no {path.name}"
        return f"{held}: only safetensors are read here; {CONVERT}"
    return (
        f"{path} is missing: {AGAIN}; if the model has weights of another kind only, these are "
        f"neither downloaded nor read: {CONVERT}"
    )


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by key, of a safetensors file whose length is what its header says.

    Raises:
        LoadError: as :func:`open_shard`, or a weight is not of floats.
    """
    with open_shard(path) as file:
        slices = {key: file.get_slice(key) for key in file.keys() if not COMPUTED.fullmatch(key)}
        kinds = {key: value.get_dtype() for key, value in slices.items()}
        shapes = {key: tuple(value.get_shape()) for key, value in slices.items()}
    odd = [f"{one_line(key)} is {kind}" for key, kind in kinds.items() if kind not in FLOATS]
    if odd:
        raise LoadError(f"{path}: weights must be floats of 16 bits or more, but {odd[0]}")
    return shapes


def weight_map(folder: Path) -> dict[str, str]:
    """The shard of every key, as the folder's index tells; empty where there is no index."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    homes = read_fields(_Index, read_json(index), str(index)).weight_map
    return {key: name for key, name in homes.items() if not COMPUTED.fullmatch(key)}


def stored_weights(folder: Path) -> dict[str, Stored]:
    """Every weight of a model folder by key, from the headers of all its shards.

    Raises:
        LoadError: as :func:`tensor_shapes`; a key stands in two shards, or not in the one that the
            index names.
    """
    index, homes = folder / INDEX, weight_map(folder)
    weights: dict[str, Stored] = {}
    for name in sorted(set(homes.values())) or [SINGLE]:
        for key, shape in tensor_shapes(folder / name).items():
            if key in weights:
                both = f"{weights[key].path} and {folder / name}"
                raise LoadError(f"{one_line(key)} stands in both {both}")
            weights[key] = Stored(folder / name, shape)
    for key, name in homes.items():
        if key not in weights or weights[key].path.name != name:
            found = f"{one_line(key)} is in {name}, and it is not"
            raise LoadError(f"{index} says that {found}: {AGAIN}")
    return weights
