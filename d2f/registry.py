"""The model catalogue: names, folders, and the D2F / AR pairs that race.

Knows no tensors. Embedded models lie in ``assets/models`` and were trained by this repository.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from d2f.config import CONFIGS, ARConfig, D2FConfig, DecodeConfig, VanillaConfig

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "models"


@dataclass(frozen=True)
class Pair:
    """A D2F model and the AR baseline it races; ``config`` holds the pair's default settings.

    ``dllm`` is the bidirectional teacher, decoded the vanilla way, with settings of its own.
    """

    name: str
    title: str
    d2f: str
    ar: str
    config: D2FConfig
    dllm: str | None = None
    vanilla: VanillaConfig = VanillaConfig(max_new_tokens=512, block_size=32)

    @property
    def lanes(self) -> dict[str, tuple[str, DecodeConfig]]:
        """Model and default settings by decoder; AR samples as D2F does."""
        shared = {field.name: getattr(self.config, field.name) for field in fields(ARConfig)}
        lanes = {"d2f": (self.d2f, self.config), "ar": (self.ar, ARConfig(**shared))}
        return lanes | ({"vanilla": (self.dllm, self.vanilla)} if self.dllm else {})


PAIRS: dict[str, Pair] = {
    "mini": Pair(
        name="mini",
        title="mini-d2f and mini-ar: 5 M parameters, embedded, trained here",
        d2f="mini-d2f",
        ar="mini-ar",
        dllm="mini-dllm",
        config=D2FConfig(max_new_tokens=256, block_size=16, max_active_blocks=3),
    ),
}


def catalogue_decoder(model: str) -> str | None:
    """The decoder a catalogue model is made for; None for a model that is in no pair."""
    lanes = (item for pair in PAIRS.values() for item in pair.lanes.items())
    return next((decoder for decoder, (name, _) in lanes if name == model), None)


def default_config(model: str, decoder: str | None = None) -> DecodeConfig:
    """Settings of a model's pair for ``decoder`` (None: the one the model is made for).

    A model that is in no pair has the decoder's own defaults; without a decoder, ``ValueError``.
    """
    decoder = decoder or catalogue_decoder(model)
    if decoder is None:
        raise ValueError(f"model {model!r} is in no pair of the catalogue: name a decoder")
    for pair in PAIRS.values():
        if decoder in pair.lanes and model in [name for name, _ in pair.lanes.values()]:
            return pair.lanes[decoder][1]
    return CONFIGS[decoder]()


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
