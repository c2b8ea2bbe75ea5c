"""PEFT's LoRA adapters: which weight of a base model each pair of matrices changes, and by what.

Keys are the base model's own, whatever its layout. Every key of an adapter must change a weight,
and every module it says it targets must be changed. Knows no network.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from d2f.checkpoints.shards import read_json, tensor_shapes
from d2f.errors import LoadError

PREFIX = "base_model.model."
PLAIN = "only plain LoRA adapters (no DoRA, bias or fan_in_fan_out) are supported"
# Fields that would leave some of the named modules out.
PARTIAL = ("layers_to_transform", "exclude_modules", "target_parameters")
# Ways to begin an adapter, of those PEFT names, that leave the base model's weights as they are.
BEGINNINGS = ("gaussian", "eva", "orthogonal")


class Lora:
    """An adapter in a folder, checked against the shapes of a base model's weights.

    Raises:
        LoadError: a file is missing, it does not fit, or is of a kind this merge does not cover.
    """

    def __init__(self, folder: Path, base: Mapping[str, tuple[int, ...]]) -> None:
        raw = read_json(folder / "adapter_config.json")
        _require_plain(raw)
        rank = raw["r"]
        self.scale: float = raw["lora_alpha"] / (rank**0.5 if raw.get("use_rslora") else rank)
        self._path = folder / "adapter_model.safetensors"
        self._pairs = adapter_pairs(raw, tensor_shapes(self._path), base, folder)

    def __contains__(self, key: str) -> bool:
        return key in self._pairs

    def delta(self, key: str) -> Tensor:
        """What to add to the weight ``key`` of the base model, in float32."""
        a, b = self._pairs[key]
        with safe_open(self._path, framework="pt") as file:
            return self.scale * (file.get_tensor(b).float() @ file.get_tensor(a).float())


def adapter_pairs(
    raw: Mapping[str, Any],
    adapter: Mapping[str, tuple[int, ...]],
    base: Mapping[str, tuple[int, ...]],
    folder: Path,
) -> dict[str, tuple[str, str]]:
    """Keys of A and B by the base weight they change.

    Args:
        raw: ``adapter_config.json``.
        adapter, base: shapes by key.
    """
    pairs = {}
    for key in sorted(adapter):
        module, found, rest = key.removeprefix(PREFIX).partition(".lora_")
        target = f"{module}.weight"
        a, b = (f"{PREFIX}{module}.lora_{side}.weight" for side in "AB")
        known = found and rest in ("A.weight", "B.weight") and key in (a, b)
        if not known or target not in base or not (a in adapter and b in adapter):
            raise LoadError(f"adapter key {key!r} in {folder} fits no weight of the base model")
        pairs[target] = (a, b)
    for target, (a, b) in pairs.items():
        rows, columns = base[target]
        shapes, fitting = (adapter[a], adapter[b]), ((raw["r"], columns), (rows, raw["r"]))
        if shapes != fitting:
            raise LoadError(
                f"adapter in {folder} does not fit the base model: A and B of {target!r} are "
                f"{shapes[0]} and {shapes[1]}, not {fitting[0]} and {fitting[1]}"
            )
    bare = [key for key in base if _targeted(raw["target_modules"], key) and key not in pairs]
    if bare:
        raise LoadError(f"adapter in {folder} targets {bare[0]!r} and holds nothing for it")
    return pairs


def _targeted(targets: str | list[str], key: str) -> bool:
    """PEFT's rule: a pattern of the whole module name, or a list of name endings."""
    if not key.endswith(".weight"):
        return False
    module = key.removesuffix(".weight")
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(f".{module}".endswith(f".{name}") for name in targets)


def _require_plain(raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise LoadError(f"adapter peft_type must be 'LORA', got {raw.get('peft_type')!r}")
    if raw.get("alpha_pattern") or raw.get("rank_pattern"):
        raise LoadError("adapters with ranks or alphas per module are not supported")
    if raw.get("use_dora") or raw.get("bias", "none") != "none" or raw.get("fan_in_fan_out"):
        raise LoadError(PLAIN)
    begun = raw.get("init_lora_weights", True)
    if isinstance(begun, str) and begun not in BEGINNINGS:
        raise LoadError(
            f"adapter init_lora_weights must be a boolean or one of {BEGINNINGS}, got {begun!r}: "
            "it changes the base model's weights"
        )
    for name in PARTIAL:
        if raw.get(name):
            raise LoadError(f"adapters with {name} are not supported")
