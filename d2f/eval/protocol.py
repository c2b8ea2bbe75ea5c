"""How problems are put to a model: as the paper's released scripts do, or as we hold for right.

``paper``: for the two models of the paper's tables, task by task: shots, templates, a token that
begins a text even where a template has written one, whole blocks to the end of the canvas, and the
scripts' own ways to count tokens. Their settings are those of Table 8.

``ours``: the chat template where the model has one, as many shots as the harness says, an answer
that ends where it ends, and tokens up to there. Settings are Table 8's too, where it has any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from d2f.bench.lanes import Known
from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS, Pair, default_config, model_name
from d2f.catalogue.published import PUBLISHED
from d2f.config import DecodeConfig, VanillaConfig
from d2f.errors import InvalidInput
from d2f.eval.answers import Way
from d2f.policy import KINDS
from d2f.shape import ModelConfig

OURS, PAPER = "ours", "paper"
PROTOCOLS = (OURS, PAPER)


@dataclass(frozen=True)
class Preset:
    """A task of the paper as the released scripts put it to one model.

    Attributes:
        task: the harness's name of it.
        vanilla: settings of the undistilled model.
    """

    task: str
    shots: int
    way: Way
    vanilla: VanillaConfig


def _llada(task: str, shots: int, vanilla: VanillaConfig) -> Preset:
    return Preset(task, shots, Way(chat=True, start=True, whole=True, count="text"), vanilla)


def _dream(task: str, shots: int, escape: bool = False) -> Preset:
    way = Way(chat=False, start=True, whole=True, escape=escape, count="all")
    return Preset(task, shots, way, VanillaConfig(max_new_tokens=256))


_CANVAS = VanillaConfig(max_new_tokens=512, block_size=32)
# By repository, then by the paper's task. MATH has no examples in LLaDA's script; the paper says 4.
PRESETS: dict[str, dict[str, Preset]] = {
    "GSAI-ML/LLaDA-8B-Instruct": {
        "gsm8k": _llada("gsm8k", 4, VanillaConfig(max_new_tokens=256, block_size=8)),
        "mbpp": _llada("mbpp", 3, _CANVAS),
        "humaneval": Preset(
            "humaneval",
            0,
            Way(chat=False, start=True, whole=True, escape=True, count="text"),
            _CANVAS,
        ),
        "math": _llada("minerva_math", 0, VanillaConfig(max_new_tokens=256, block_size=256)),
    },
    "Dream-org/Dream-v0-Base-7B": {
        "gsm8k": _dream("gsm8k_cot", 8),
        "mbpp": _dream("mbpp", 3),
        "humaneval": _dream("humaneval", 0, escape=True),
        "math": _dream("minerva_math", 4),
    },
}


def presets(model: str) -> Mapping[str, Preset]:
    """The paper's protocol for a model.

    Raises:
        InvalidInput: the paper has none.
    """
    found = PRESETS.get(repository(model) or "")
    if found is None:
        names = [name for name, each in PUBLISHED.items() if each.repo.id in PRESETS]
        raise InvalidInput(f"the paper has no protocol for {model!r}; it has one for {names}")
    return found


def repository(model: str) -> str | None:
    """The hub's repository of a catalogue model; None for another."""
    return PUBLISHED[model].repo.id if model in PUBLISHED else None


def pair_of(model: str) -> Pair | None:
    """The catalogue's pair that a model belongs to, by its name or that of its folder."""
    name = model_name(model)
    pairs = (PAIRS | PUBLISHED_PAIRS).values()
    return next((p for p in pairs if name in [each for each, _ in p.lanes.values()]), None)


def known_lanes(
    model: str,
    task: str | None = None,
    preset: Preset | None = None,
    own: ModelConfig | None = None,
) -> Known:
    """Model and settings for every decoder: the model's pair provides those it cannot run itself.

    Args:
        task: where Table 8 has settings for it, they are D2F's.
        preset: the paper's way to put it, whose settings go before.
        own: what the model's files tell.
    """
    pair = pair_of(model)
    return {
        decoder: (_runs(model, pair, decoder), _settings(model, decoder, task, preset, own))
        for decoder in KINDS
    }


def _runs(model: str, pair: Pair | None, decoder: str) -> str:
    if pair is None:
        return model
    others = {"d2f": pair.d2f, "ar": pair.ar, "dllm": pair.dllm or pair.d2f}
    base = others["ar"] if KINDS[decoder].causal else others["dllm"]
    name = pair.lanes[decoder][0] if decoder in pair.lanes else base
    return model if name == model_name(model) else name


def _settings(
    model: str, decoder: str, task: str | None, preset: Preset | None, own: ModelConfig | None
) -> DecodeConfig:
    if preset is not None and decoder == "vanilla":
        return preset.vanilla
    pair = pair_of(model)
    config = default_config(model_name(model), decoder, PAIRS | PUBLISHED_PAIRS, own)
    if pair is not None and decoder not in pair.lanes:
        config = _like(config, pair.vanilla)
    table = PUBLISHED[model].presets if model in PUBLISHED else {}
    if task is not None and task in table:
        return table[task] if decoder == "d2f" else _like(config, table[task])
    return config


def _like(config: DecodeConfig, other: DecodeConfig) -> DecodeConfig:
    """The settings with the other's length, and with its block size where they have one."""
    own = {field.name for field in fields(config)} & {"max_new_tokens", "block_size"}
    size = {name: getattr(other, name, None) for name in own}
    return replace(config, **{name: value for name, value in size.items() if value is not None})
