"""LoRA on a network of ours, by peft, in the base model's own names.

Our network computes query, key and value by one product, and gate and up by another; an adapter of
the base model has a pair of matrices for each. So the products are taken apart first, which changes
no number; the adapter that is saved fits the published weights, peft's own loading, and
``load_model(base, adapter=...)``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from d2f.checkpoints.lora import PREFIX
from d2f.checkpoints.weight_names import Layout, key_map
from d2f.errors import InvalidInput, LoadError
from d2f.nn.transformer import Transformer

ADAPTER = "default"  # peft's name of the only adapter


class Parts(nn.Module):
    """A product taken apart by rows: its outputs, side by side."""

    def __init__(self, whole: nn.Linear, rows: Sequence[int]) -> None:
        super().__init__()
        weights = torch.split(whole.weight, list(rows))
        biases = [None] * len(rows) if whole.bias is None else torch.split(whole.bias, list(rows))
        self.parts = nn.ModuleList(map(_linear, weights, biases))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    rows, columns = weight.shape
    part = nn.Linear(columns, rows, bias=bias is not None, device="meta")
    part.weight = nn.Parameter(weight.detach())
    if bias is not None:
        part.bias = nn.Parameter(bias.detach())
    return part


def take_apart(net: Transformer, layout: Layout) -> dict[str, str]:
    """Split every product that a published layout has in several; in place.

    Returns:
        Our module of each published one: of the layers' matrices.
    """
    slots = {key.removesuffix(".weight"): slot for key, slot in key_map(net.config, layout).items()}
    heights: dict[str, list[int]] = {}
    modules = {}
    for published, slot in slots.items():
        ours = slot.key.removesuffix(".weight")
        if not ours.startswith("layers.") or len(slot.shape) != 2:
            continue
        heights.setdefault(ours, []).append(slot.shape[0])
        modules[published] = ours
    for ours, rows in heights.items():
        if len(rows) > 1:
            parent, _, name = ours.rpartition(".")
            whole = net.get_submodule(ours)
            assert isinstance(whole, nn.Linear)
            setattr(net.get_submodule(parent), name, Parts(whole, rows))
    places: dict[str, int] = {}
    for published, ours in modules.items():
        if len(heights[ours]) > 1:
            place = places.get(ours, 0)
            places[ours] = place + 1
            modules[published] = f"{ours}.parts.{place}"
    return modules


class Adapter:
    """A LoRA adapter on a network, which is changed in place; only its matrices train.

    Args:
        targets: endings of the published names of the products it changes, as peft reads them.

    Raises:
        InvalidInput: a target names no product of the base model.
    """

    def __init__(
        self,
        net: Transformer,
        layout: Layout,
        targets: Sequence[str],
        *,
        rank: int,
        alpha: int,
        dropout: float,
        base: str,
    ) -> None:
        modules = take_apart(net, layout)
        for target in targets:
            if not any(_ends(published, target) for published in modules):
                ends = sorted({published.rpartition(".")[2] for published in modules})
                raise InvalidInput(f"targets must be among {ends}, got {target!r}")
        self.modules = {
            published: ours
            for published, ours in modules.items()
            if any(_ends(published, target) for target in targets)
        }

        peft = needed_peft()

        def config(targets: Sequence[str]) -> Any:
            return peft.LoraConfig(
                r=rank,
                lora_alpha=alpha,
                lora_dropout=dropout,
                target_modules=list(targets),
                base_model_name_or_path=base,
                task_type="CAUSAL_LM",
            )

        peft.inject_adapter_in_model(config(list(self.modules.values())), net)
        self.config = config(targets)
        self.net = net

    @contextmanager
    def off(self) -> Iterator[None]:
        """The base model's own weights: the teacher."""
        self._enable(False)
        try:
            yield
        finally:
            self._enable(True)

    def _enable(self, on: bool) -> None:
        for ours in self.modules.values():
            layer: Any = self.net.get_submodule(ours)
            layer.enable_adapters(on)

    def state(self) -> dict[str, Tensor]:
        """The adapter's matrices under the keys of a PEFT folder."""
        return {
            f"{PREFIX}{published}.lora_{side}.weight": self._matrix(ours, side)
            for published, ours in self.modules.items()
            for side in "AB"
        }

    def _matrix(self, ours: str, side: str) -> Tensor:
        """It shares memory with the one that trains."""
        layer = self.net.get_submodule(f"{ours}.lora_{side}.{ADAPTER}")
        assert isinstance(layer, nn.Linear)
        return layer.weight.detach()

    def save(self, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "adapter_model.safetensors.part"
        state = {key: matrix.contiguous() for key, matrix in self.state().items()}
        save_file(state, part, metadata={"format": "pt"})
        part.replace(folder / "adapter_model.safetensors")
        self.config.save_pretrained(str(folder))


def needed_peft() -> Any:
    """The module ``peft``.

    Raises:
        LoadError: it is not installed.
    """
    try:
        import peft  # an extra
    except ImportError as error:
        raise LoadError("d2f distil needs peft: pip install peft") from error
    return peft


def _ends(published: str, target: str) -> bool:
    return published == target or published.endswith(f".{target}")
