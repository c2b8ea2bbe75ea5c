"""From a name to folders: the first stage of loading.

A name is one of the catalogue, a folder, or an id of the hub; what is not here is downloaded.
"""

import os.path
import re
from dataclasses import dataclass, field
from pathlib import Path

from d2f.catalogue.entry import Published
from d2f.catalogue.pairs import local_folder, model_folder, model_name
from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.config_json import model_config
from d2f.checkpoints.hub import cached, snapshot
from d2f.errors import HubError, InvalidInput, LoadError
from d2f.model_files import read_json
from d2f.shape import Diffusion, Shape

HUB_ID = re.compile(r"(?P<id>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """Where a model's files lie, with those of the adapter to merge.

    ``said`` is what the catalogue says of how it is decoded.
    """

    name: str
    folder: Path
    adapter: Path | None = None
    said: Diffusion = field(default_factory=Diffusion)


def resolve(
    name_or_folder: str | Path,
    adapter: str | Path | None = None,
    revision: str | None = None,
) -> Source:
    """The folders of what :func:`d2f.load_model` takes, downloaded at need.

    Raises:
        InvalidInput: no such name or folder, or a revision of what has none.
        LoadError: an adapter for another base; HubError: it cannot be downloaded.
    """
    name, published = model_name(name_or_folder), published_model(name_or_folder)
    if published is not None and published.adapter is not None:
        if adapter is not None:
            raise LoadError(f"model {name!r} has an adapter of its own, got {str(adapter)!r}")
        # The small one first: whatever is wrong with the network shows at once.
        own = snapshot(published.adapter.repo.id, published.adapter.repo.revision)
        return Source(name, _snapshot(published, revision), own, published.diffusion)
    other = None
    if adapter is not None:
        other = find_adapter(adapter)
        own_name = Path(published.repo.id).name if published else _repository(name_or_folder)
        check_base(other, own_name)
    if published is not None:
        return Source(name, _snapshot(published, revision), other, published.diffusion)
    return Source(name, find_folder(name_or_folder, revision), other)


def _snapshot(model: Published, revision: str | None) -> Path:
    return snapshot(model.repo.id, revision or model.repo.revision)


def find_folder(name_or_folder: str | Path, revision: str | None = None) -> Path:
    """The folder of an embedded model, of a path, or of a repository of the hub by its id."""
    found = _from_hub(name_or_folder, "model", revision)
    if found is None and revision is not None:
        raise InvalidInput(f"revision {revision!r} is of no use: {name_or_folder} is no hub id")
    return found or model_folder(name_or_folder)


def find_adapter(name_or_folder: str | Path) -> Path:
    """The folder of an adapter, by a path or by the id of a repository of the hub."""
    return _from_hub(name_or_folder, "adapter") or local_folder(name_or_folder)


def _from_hub(name_or_folder: str | Path, what: str, revision: str | None = None) -> Path | None:
    """The snapshot of what an id of the hub names; None for what is no such id."""
    found = _hub_id(name_or_folder)
    if found is None:
        return None
    try:
        return snapshot(found["id"], revision or found["revision"] or "main")
    except HubError as error:
        raise HubError(f"no {what} folder {str(name_or_folder)!r}; on the hub: {error}") from error


def _hub_id(name_or_folder: str | Path) -> re.Match[str] | None:
    """A text that names no folder here, as an id of the hub and perhaps a revision."""
    if isinstance(name_or_folder, Path) or os.path.isdir(name_or_folder):
        return None
    return HUB_ID.fullmatch(name_or_folder)


def _repository(name_or_folder: str | Path) -> str | None:
    """The name of the repository a model is from: by its id, or as its folder's path tells.

    A path tells by a folder of a published repository's name, the hub's cache included; None: no.
    """
    found = _hub_id(name_or_folder)
    if found is not None:
        return Path(found["id"]).name
    parts = local_folder(name_or_folder).resolve().parts
    # The hub's cache has folders models--OWNER--NAME.
    names = (part.rpartition("--")[2] for part in reversed(parts))
    return next((name for name in names if name in _published_names()), None)


def published_model(name_or_folder: str | Path) -> Published | None:
    """The catalogue's model of a bare name; a ``Path`` is a folder whatever it is called."""
    return PUBLISHED.get(name_or_folder) if isinstance(name_or_folder, str) else None


def _published_names() -> set[str]:
    return {Path(model.repo.id).name for model in PUBLISHED.values()}


def check_base(adapter: Path, repository: str | None) -> None:
    """``LoadError`` if an adapter says that it was trained on another model of the catalogue.

    Models of one shape take each other's adapters without complaint, and answer nonsense.

    Args:
        repository: name of the base model's, without its owner; None: unknown, and nothing is said.
    """
    raw = read_json(adapter / "adapter_config.json")
    said = Path(str(raw.get("base_model_name_or_path") or "")).name
    if repository is not None and said in _published_names() and said != repository:
        raise LoadError(f"adapter in {adapter} was trained on {said}, not on {repository}")


def find_shape(name_or_folder: str | Path) -> Shape:
    """The shape of what :func:`load_model` takes; a published model's without a download."""
    published = published_model(name_or_folder)
    if published is not None:
        return known_shape(published)
    return folder_shape(find_folder(name_or_folder))


def known_shape(model: Published) -> Shape:
    """The shape a published model's own config.json tells once it is downloaded, else ours."""
    folder = cached(model.repo.id, model.repo.revision)
    return model.shape if folder is None else folder_shape(folder, model.diffusion)


def folder_shape(folder: Path, said: Diffusion | None = None) -> Shape:
    """The shape of the model in a folder, as its config.json tells; ``said`` by the catalogue."""
    return model_config(read_json(folder / "config.json"), said or Diffusion())
