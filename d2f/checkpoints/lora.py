"""PEFT's LoRA adapters: which weight of a base model each pair of matrices changes, and by what.

Keys are the base model's own, whatever its layout. Every key of an adapter must change a weight,
and every module it says it targets must be changed. Knows no network.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from d2f.checkpoints.shards import open_shard, tensor_shapes
from d2f.errors import LoadError, one_line
from d2f.model_files import Fields, read_fields, read_json

PREFIX = "base_model.model."
PLAIN = "only plain LoRA adapters (no DoRA, bias or fan_in_fan_out) are supported"
# Fields that would leave some of the named modules out.
PARTIAL = ("layers_to_transform", "exclude_modules", "target_parameters")
# Ways to begin an adapter, of those PEFT names, that leave the base model's weights as they are.
BEGINNINGS = ("gaussian", "eva", "orthogonal")


class LoraConfig(Fields):
    """``adapter_config.json``; of most fields it matters only whether they say anything."""

    peft_type: Literal["LORA"]
    init_lora_weights: bool | str | None = None
    alpha_pattern: Any = None
    rank_pattern: Any = None
    use_dora: Any = None
    bias: str | None = None
    fan_in_fan_out: Any = None
    layers_to_transform: Any = None
    exclude_modules: Any = None
    target_parameters: Any = None
    r: Annotated[int, Field(ge=1, le=2**16)]
    lora_alpha: Annotated[float, Field(allow_inf_nan=False)]
    use_rslora: bool | None = None
    target_modules: str | list[str]

    @property
    def scale(self) -> float:
        """What the product of B and A is multiplied by."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


class Lora:
    """An adapter in a folder, checked against the shapes of a base model's weights.

    Raises:
        LoadError: a file is missing, it does not fit, or is of a kind this merge does not cover.
    """

    def __init__(self, folder: Path, base: Mapping[str, tuple[int, ...]]) -> None:
        raw = read_json(folder / "adapter_config.json")
        config = read_fields(LoraConfig, raw, "adapter_config.json")
        _require_plain(config)
        self.scale = config.scale
        self._path = folder / "adapter_model.safetensors"
        self._pairs = adapter_pairs(config, tensor_shapes(self._path), base, folder)

    def __contains__(self, key: str) -> bool:
        return key in self._pairs

    def delta(self, key: str) -> Tensor:
        """What to add to the weight ``key`` of the base model, in float32."""
        a, b = self._pairs[key]
        with open_shard(self._path) as file:
            product: Tensor = file.get_tensor(b).float() @ file.get_tensor(a).float()
        return self.scale * product


def adapter_pairs(
    config: LoraConfig,
    adapter: Mapping[str, tuple[int, ...]],
    base: Mapping[str, tuple[int, ...]],
    folder: Path,
) -> dict[str, tuple[str, str]]:
    """Keys of A and B by the base weight they change.

    Args:
        adapter, base: shapes by key.

    Raises:
        LoadError: keys, shapes or targets do not fit.
    """
    targets = _target_pattern(config.target_modules)
    pairs = {}
    for key in sorted(adapter):
        module, found, rest = key.removeprefix(PREFIX).partition(".lora_")
        target = f"{module}.weight"
        a, b = (f"{PREFIX}{module}.lora_{side}.weight" for side in "AB")
        known = found and rest in ("A.weight", "B.weight") and key in (a, b)
        matrix = len(base.get(target, ())) == 2
        if not known or not matrix or not (a in adapter and b in adapter):
            shown = one_line(repr(key))
            raise LoadError(f"adapter key {shown} in {folder} fits no weight of the base model")
        pairs[target] = (a, b)
    for target, (a, b) in pairs.items():
        rows, columns = base[target]
        shapes, fitting = (adapter[a], adapter[b]), ((config.r, columns), (rows, config.r))
        if shapes != fitting:
            are = " and ".join(one_line(shape, 100) for shape in shapes)
            raise LoadError(
                f"adapter in {folder} does not fit the base model: A and B of {target!r} are "
                f"{are}, not {fitting[0]} and {fitting[1]}"
            )
    modules = {key.removesuffix(".weight"): key for key in base if key.endswith(".weight")}
    bare = [
        key for module, key in modules.items() if targets.fullmatch(module) and key not in pairs
    ]
    if bare:
        raise LoadError(f"adapter in {folder} targets {bare[0]!r} and holds nothing for it")
    return pairs


def _target_pattern(targets: str | list[str]) -> re.Pattern[str]:
    """PEFT's rule of the modules it targets: a pattern of the whole name, or a list of endings."""
    if not isinstance(targets, str):
        targets = rf"(.*\.)?({'|'.join(map(re.escape, targets))})"
    try:
        return re.compile(targets)
    except (re.error, OverflowError, RecursionError) as error:  # all that compiling raises
        shown = f"{one_line(repr(targets), 100)} ({one_line(error, 100)})"
        raise LoadError(f"adapter target_modules is no valid pattern: {shown}") from error


def _require_plain(config: LoraConfig) -> None:
    if config.alpha_pattern or config.rank_pattern:
        raise LoadError("adapters with ranks or alphas per module are not supported")
    if config.use_dora or config.bias not in (None, "none") or config.fan_in_fan_out:
        raise LoadError(PLAIN)
    begun = config.init_lora_weights
    if isinstance(begun, str) and begun not in BEGINNINGS:
        raise LoadError(
            f"adapter init_lora_weights must be a boolean or one of {BEGINNINGS}, "
            f"got {one_line(repr(begun))}: it changes the base model's weights"
        )
    for name in PARTIAL:
        if getattr(config, name):
            raise LoadError(f"adapters with {name} are not supported")
