"""The model catalogue: names, folders, and the D2F / AR pairs that race.

Knows no tensors. Embedded models lie in ``assets/models`` and were trained by this repository.
"""

from dataclasses import dataclass
from pathlib import Path

from d2f.config import D2FConfig

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "models"


@dataclass(frozen=True)
class Pair:
    """A D2F model and the AR baseline it races; ``config`` holds the pair's default settings."""

    name: str
    title: str
    d2f: str
    ar: str
    config: D2FConfig


PAIRS: dict[str, Pair] = {
    "mini": Pair(
        name="mini",
        title="mini-d2f and mini-ar: 5 M parameters, embedded, trained here",
        d2f="mini-d2f",
        ar="mini-ar",
        config=D2FConfig(max_new_tokens=256, block_size=16, max_active_blocks=3),
    ),
}


def embedded_models() -> list[str]:
    """Names of the models that ship in this repository."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def model_folder(name_or_folder: str | Path) -> Path:
    """The folder of a catalogue name or of a path; ``ValueError`` if there is none."""
    for folder in (EMBEDDED / str(name_or_folder), Path(name_or_folder)):
        if (folder / "config.json").is_file():
            return folder
    raise ValueError(
        f"no model {str(name_or_folder)!r}: not one of {embedded_models()} "
        "and not a folder with a config.json"
    )
