"""The model catalogue: names, folders, and the D2F / AR pairs that race.

Knows no tensors. Embedded models lie in ``assets/models`` and were trained by this repository;
published ones are described in :mod:`d2f.catalogue.published` and lie on the Hugging Face hub.
"""

import os.path
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from d2f.catalogue.entry import Published, Repo
from d2f.catalogue.published import PUBLISHED
from d2f.catalogue.sizes import Need, gigabytes, needs, pair_bytes
from d2f.config import (
    CONFIGS,
    ARConfig,
    D2FConfig,
    DecodeConfig,
    FastDualConfig,
    FastPrefixConfig,
    VanillaConfig,
    decoder_name,
    settings_of,
)
from d2f.errors import InvalidInput
from d2f.places import ASSETS
from d2f.shape import QUANTISED_BYTES, ModelConfig, Shape

EMBEDDED = ASSETS / "models"


@dataclass(frozen=True)
class Pair:
    """A D2F model and the AR baseline it races; ``config`` holds the pair's default settings.

    ``dllm`` is the bidirectional teacher, decoded the vanilla way or by Fast-dLLM, with settings of
    its own. ``rival`` names the decoder that D2F races; ``lookup`` is how many tokens AR drafts.
    """

    name: str
    title: str
    d2f: str
    ar: str
    config: D2FConfig
    dllm: str | None = None
    vanilla: VanillaConfig = VanillaConfig(max_new_tokens=512, block_size=32)
    rival: str = "ar"
    lookup: int = 0

    @property
    def racing(self) -> tuple[str, str]:
        """The decoders of a race's two lanes."""
        return "d2f", self.rival

    @property
    def shared(self) -> dict[str, Any]:
        """Settings that every decoder has, as D2F has them."""
        return {name: getattr(self.config, name) for name in settings_of(DecodeConfig)}

    @property
    def lanes(self) -> dict[str, tuple[str, DecodeConfig]]:
        """Model and default settings by decoder; AR samples as D2F does."""
        ar = ARConfig(**self.shared, prompt_lookup=self.lookup)
        lanes = {"d2f": (self.d2f, self.config), "ar": (self.ar, ar)}
        return lanes | (self._canvases(self.dllm) if self.dllm else {})

    def _canvases(self, model: str) -> dict[str, tuple[str, DecodeConfig]]:
        size = self.vanilla.block_size or FastPrefixConfig.block_size
        same: dict[str, Any] = {"max_new_tokens": self.vanilla.max_new_tokens, "block_size": size}
        every = (self.vanilla, FastPrefixConfig(**same), FastDualConfig(**same))
        return {decoder_name(config): (model, config) for config in every}

    def raced(self, decoder: str) -> DecodeConfig:
        """Settings of a lane in a race, where both sample alike and may be as long."""
        return replace(self.lanes[decoder][1], **self.shared)


PAIRS: dict[str, Pair] = {
    "mini": Pair(
        name="mini",
        title="mini-d2f and mini-ar: 5 M parameters, embedded, trained here",
        d2f="mini-d2f",
        ar="mini-ar",
        dllm="mini-dllm",
        config=D2FConfig(max_new_tokens=256, block_size=8, tau_conf=0.98, max_active_blocks=4),
        vanilla=VanillaConfig(max_new_tokens=512, block_size=8),
    ),
}


def _published_pair(name: str, d2f: str, config: D2FConfig, vanilla: VanillaConfig) -> Pair:
    model = PUBLISHED[d2f]
    assert model.partner is not None and model.adapter is not None
    bases = [each.name for each in PUBLISHED.values() if each.repo == model.repo]
    base, partner = next(each for each in bases if each != d2f), PUBLISHED[model.partner]
    size = f"{model.shape.parameters / 1e9:.1f} B parameters"
    title = f"D2F on {model.repo.id} and {partner.repo.id}: {size}, on a GPU"
    return Pair(name, title, d2f, partner.name, config, base, vanilla)


def _block_pair(name: str, d2f: str, preset: str = "authors") -> Pair:
    """A model of blocks against the autoregressive model it was made from."""
    model = PUBLISHED[d2f]
    config = model.presets[preset]
    assert isinstance(config, D2FConfig) and model.partner is not None
    size = f"{model.shape.parameters / 1e9:.1f} B parameters"
    title = f"{model.repo.id} and {PUBLISHED[model.partner].repo.id}: {size}"
    return Pair(name, title, d2f, model.partner, config)


def _preset(model: str, name: str) -> D2FConfig:
    config = PUBLISHED[model].presets[name]
    assert isinstance(config, D2FConfig)
    return config


# Pairs of published models. They are no part of PAIRS, all of which run anywhere at once.
PUBLISHED_PAIRS: dict[str, Pair] = {
    pair.name: pair
    for pair in (
        _published_pair(
            "llada",
            "d2f-llada-8b-instruct",
            _preset("d2f-llada-8b-instruct", "math"),
            VanillaConfig(max_new_tokens=512, block_size=32),
        ),
        _published_pair(
            "dream-base",
            "d2f-dream-7b-base",
            _preset("d2f-dream-7b-base", "gsm8k"),
            VanillaConfig(max_new_tokens=256, block_size=None),
        ),
        _published_pair(
            "dream",
            "d2f-dream-7b-instruct",
            _preset("d2f-dream-7b-instruct", "gsm8k"),
            VanillaConfig(max_new_tokens=256, block_size=None),
        ),
        _published_pair(
            "diffucoder",
            "d2f-diffucoder-7b-instruct",
            _preset("d2f-diffucoder-7b-instruct", "lopa"),
            VanillaConfig(max_new_tokens=256, block_size=None),
        ),
        _block_pair("coder-0.5b", "qwen2.5-coder-0.5b-bd3lm"),
        _block_pair("a2d-0.6b", "qwen3-0.6b-bd3lm"),
        _block_pair("fast-dllm-1.5b", "fast-dllm-v2-1.5b"),
        _block_pair("sdar-1.7b", "sdar-1.7b-chat"),
        _block_pair("sdar-4b", "sdar-4b-chat"),
        _block_pair("trado-4b", "trado-4b-instruct"),
        _block_pair("fast-dllm-7b", "fast-dllm-v2-7b"),
        _block_pair("sdar-8b", "sdar-8b-chat"),
        _block_pair("mbd-8b", "mbd-sdar-8b", "pipelined"),
        _block_pair("trado-8b", "trado-8b-instruct"),
        _block_pair("reasoner-8b", "dreamreasoner-8b"),
        _block_pair("diffcoder-8b", "stable-diffcoder-8b-instruct"),
    )
}

RACING = ("d2f", "ar")
# Whom a D2F model can race where its partner's licence is in the way.
OPEN_PARTNER = "qwen2.5-7b-instruct"
READY, DOWNLOAD, GATED, MEMORY = "ready", "download", "gated", "memory"


@dataclass(frozen=True)
class PairState:
    """Whether a pair can run here: one of the kinds above, and why or what to do, in words."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Here:
    """What pairs meet on this machine.

    Attributes:
        device: where models run, and ``free``, its free bytes: 0 if it is not there, None if it
            does not say.
        token: whether a token of the hub is set up.
        repos: ids of the hub's repositories that are downloaded whole.
        folders: names of models that have a folder of their own.
        shapes: by model, where its own files tell; the catalogue's serve elsewhere.
    """

    device: str = "cuda"
    free: int | None = 0
    token: bool = False
    repos: Container[str] = ()
    folders: Container[str] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)


def against(pair: Pair, ar: str) -> Pair:
    """The pair with another autoregressive model of the catalogue."""
    known = sorted({each.ar for each in (PAIRS | PUBLISHED_PAIRS).values()})
    if ar not in known:
        raise InvalidInput(f"the AR model must be one of {known}, got {ar!r}")
    title = f"{pair.d2f} against {ar}"
    return pair if ar == pair.ar else replace(pair, name=f"{pair.name}-{ar}", title=title, ar=ar)


def _models(pair: Pair, decoders: Sequence[str]) -> Iterator[Published]:
    """The published models that these lanes need."""
    names = (pair.lanes[decoder][0] for decoder in decoders)
    return (PUBLISHED[name] for name in names if name in PUBLISHED)


def pair_repos(pair: Pair, decoders: Sequence[str] = RACING) -> dict[Repo, int]:
    """The repositories these lanes of a race need, and about how many bytes each takes."""
    return {r: model.download(r) for model in _models(pair, decoders) for r in model.repos}


def pair_memory(
    pair: Pair,
    weights: str | None = None,
    dtype: str = "bfloat16",
    decoders: Sequence[str] = RACING,
    shapes: Mapping[str, Shape] | None = None,
) -> int:
    """Bytes these lanes of a published pair take on one device, computed.

    What CUDA takes for itself is included, as in :func:`published_needs`.

    Args:
        weights: a quantisation, as in :meth:`d2f.catalogue.published.Shape.memory`.
        shapes: by model, those that are not the catalogue's.
    """
    own = shapes or {}
    lanes = [own.get(model.name, model.shape) for model in _models(pair, decoders)]
    return pair_bytes([shape.memory(dtype, weights=weights) for shape in lanes])


def published_needs() -> list[Need]:
    """What the published pairs take, with each kind of weights; pairs of equal shapes together."""
    names: dict[tuple[Shape, Shape], list[str]] = {}
    for pair in PUBLISHED_PAIRS.values():
        shapes = (PUBLISHED[pair.d2f].shape, PUBLISHED[pair.ar].shape)
        gated = " (gated)" if any(repo.gated for repo in pair_repos(pair)) else ""
        names.setdefault(shapes, []).append(f"`{pair.name}`{gated}")
    return needs({", ".join(each): shapes for shapes, each in names.items()})


def pair_state(
    pair: Pair,
    here: Here,
    weights: str | None = None,
    dtype: str = "bfloat16",
    decoders: Sequence[str] = RACING,
) -> PairState:
    """What stands between a pair and a race, the hardest to change first.

    Args:
        weights: the quantisation it would run with.
        decoders: the lanes that run here.
    """
    need = pair_memory(pair, weights, dtype, decoders, here.shapes)
    if need and here.free is not None and need > here.free:
        smaller = "" if weights or not here.free else _smaller(pair, here, dtype, decoders)
        return PairState(MEMORY, _too_little(need, here) + smaller)
    models = [model for model in _models(pair, decoders) if model.name not in here.folders]
    missing = {repo: model for model in models for repo in model.repos if repo.id not in here.repos}
    gated = [repo.id for repo in missing if repo.gated]
    if gated and not here.token:
        return PairState(GATED, _gated(pair, gated[0]))
    if missing:
        size = gigabytes(sum(model.download(repo) for repo, model in missing.items()))
        whole = pair.name in PUBLISHED_PAIRS and len(models) == len(RACING)
        names = [pair.name] if whole else dict.fromkeys(model.name for model in missing.values())
        command = f"python -m d2f models --download {' '.join(names)}"
        return PairState(DOWNLOAD, f"needs a download of {size}: {command}")
    return PairState(READY, "ready")


def _too_little(need: int, here: Here) -> str:
    if here.device.startswith("cpu"):
        there = gigabytes(here.free or 0)
        return f"needs {gigabytes(need)} of free memory, best a GPU's; the CPU has {there}"
    there = f"this one has {gigabytes(here.free)}" if here.free else "there is none here"
    return f"needs a GPU with {gigabytes(need)} free; {there}"


def _smaller(pair: Pair, here: Here, dtype: str, decoders: Sequence[str]) -> str:
    """The least coarse quantisation that fits, as something to do; nothing if none does."""
    for kind in QUANTISED_BYTES:
        need = pair_memory(pair, kind, dtype, decoders, here.shapes)
        if here.free is not None and need <= here.free:
            return f", enough with --quantize {kind} ({gigabytes(need)})"
    return ""


def _gated(pair: Pair, repo: str) -> str:
    text = f"gated: accept the licence at https://huggingface.co/{repo}, then 'hf auth login'"
    if pair.name not in PUBLISHED_PAIRS:
        return text
    return f"{text}; or race an open model: python app.py --pair {pair.name} --ar {OPEN_PARTNER}"


def catalogue_decoder(model: str, pairs: Mapping[str, Pair] = PAIRS) -> str | None:
    """The decoder a catalogue model is made for; None for a model that is in no pair."""
    lanes = (item for pair in pairs.values() for item in pair.lanes.items())
    return next((decoder for decoder, (name, _) in lanes if name == model), None)


def rival(model: str) -> str:
    """The model that a catalogue model races.

    Raises:
        InvalidInput: it races none.
    """
    for pair in (PAIRS | PUBLISHED_PAIRS).values():
        if model in (pair.d2f, pair.ar):
            return pair.ar if model == pair.d2f else pair.d2f
    raise InvalidInput(f"the catalogue knows no rival of {model!r}; name one")


def made_for(model: str, pairs: Mapping[str, Pair]) -> str | None:
    """The decoder of a model of the catalogue, be it in a pair or not; None: of another model."""
    published = PUBLISHED[model].decoder if model in PUBLISHED else None
    return catalogue_decoder(model, pairs) or published


def default_config(
    model: str,
    decoder: str | None = None,
    pairs: Mapping[str, Pair] = PAIRS,
    own: ModelConfig | None = None,
) -> DecodeConfig:
    """Settings of a model's pair for ``decoder`` (None: the one the model is made for).

    A model that is in no pair has its first preset, else the decoder's own defaults. ``own`` is
    what its files tell: they decide the grid, and for a model in no pair the length of the blocks.
    Without a decoder, a pair or these, ``ValueError``.
    """
    decoder = decoder or catalogue_decoder(model, pairs)
    if decoder is None and own is not None:
        decoder = "ar" if own.causal else "d2f"
    if decoder is None:
        raise InvalidInput(f"model {model!r} is in no pair of the catalogue: name a decoder")
    for pair in pairs.values():
        if decoder in pair.lanes and model in [name for name, _ in pair.lanes.values()]:
            return _on_grid(pair.lanes[decoder][1], own)
    presets = PUBLISHED[model].presets.values() if model in PUBLISHED else ()
    fitting = [preset for preset in presets if isinstance(preset, CONFIGS[decoder])]
    config = _on_grid(fitting[0] if fitting else CONFIGS[decoder](), own)
    if own is None or own.block_size is None or not isinstance(config, D2FConfig):
        return config
    return replace(config, block_size=own.block_size)


def _on_grid(config: DecodeConfig, own: ModelConfig | None) -> DecodeConfig:
    """Settings with the grid that the model's own files tell."""
    if own is None or not isinstance(config, D2FConfig):
        return config
    return replace(config, grid=own.grid)


def embedded_models() -> list[str]:
    """Names of the models that ship in this repository."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def local_folder(name_or_folder: str | Path) -> Path:
    """What was typed, as a path; ``~`` is the home folder. Nothing typed is ``InvalidInput``."""
    if not str(name_or_folder):
        raise InvalidInput("a model or an adapter needs a name or a folder, got ''")
    path = os.path.expanduser(name_or_folder)
    if path.startswith("~") and not os.path.exists(path):
        raise InvalidInput(f"the home folder of {path!r} is not known: give the whole path")
    return Path(path)


def model_name(name_or_folder: str | Path) -> str:
    """What a model is called: its own name, or that of its folder, wherever one stands."""
    path = os.path.abspath(local_folder(name_or_folder))
    return os.path.basename(path) or path


def model_folder(name_or_folder: str | Path) -> Path:
    """The folder of a model.

    Args:
        name_or_folder: a bare name of an embedded model is that model; ``./name``, every other text
            and every ``Path`` is a folder.

    Raises:
        InvalidInput: there is none.
    """
    if isinstance(name_or_folder, str) and name_or_folder in embedded_models():
        return EMBEDDED / name_or_folder
    folder = local_folder(name_or_folder)
    if os.path.isfile(folder / "config.json"):
        return folder
    raise InvalidInput(
        f"no model {str(name_or_folder)!r}: not one of {embedded_models()} "
        "and not a folder with a config.json"
    )
