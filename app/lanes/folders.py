"""Models of the catalogue that lie in a folder of the operator's own. Loads nothing."""

from pathlib import Path

from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS


def models_in(folder: Path) -> list[str]:
    """The models of the catalogue that have a folder of their name in ``folder``."""
    pairs = (PAIRS | PUBLISHED_PAIRS).values()
    names = {name for pair in pairs for name, _ in pair.lanes.values()}
    return sorted(name for name in names if _is_model(folder / name))


def found_model(name: str, folder: Path | None) -> str:
    """The model's own folder in ``folder``, if it is there, else its name."""
    local = folder / name if folder else None
    # Whole, since a bare name would be the catalogue's again.
    return str(local.absolute()) if local and _is_model(local) else name


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()
