"""Folders written in transformers' own format, which :func:`d2f.load_model` reads."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from d2f.checkpoints.config_json import config_json
from d2f.checkpoints.weight_names import TRANSFORMERS, Layout, key_map
from d2f.errors import ComputeError
from d2f.nn.transformer import Transformer
from d2f.strict_json import to_json


def split(net: Transformer, layout: Layout = TRANSFORMERS) -> dict[str, Tensor]:
    """The network's weights under published key names; inverse of loading."""
    state = net.state_dict()
    return {key: state[slot.key][slot.rows] for key, slot in key_map(net.config, layout).items()}


def save_model(net: Transformer, folder: Path | str, stop_ids: list[int]) -> None:
    """Write ``config.json`` and ``model.safetensors`` (float16) that :func:`d2f.load_model` reads.

    The weights are also transformers' ``LlamaForCausalLM`` (``Qwen2ForCausalLM`` with biases,
    ``Qwen3ForCausalLM`` with norms of heads).
    Files are replaced whole, so that an interrupted save loses nothing.

    Raises:
        InvalidInput: it has both biases and norms of heads.
        ComputeError: a weight is not finite in float16; nothing is written.
    """
    state = {key: value.half().contiguous() for key, value in split(net).items()}
    lost = [key for key, value in state.items() if not value.isfinite().all()]
    if lost:
        raise ComputeError(f"weight {lost[0]} holds NaN, or is too large for float16: not saved")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = to_json(config_json(net.config, stop_ids), indent=2) + "\n"
    (folder / "config.json.part").write_text(text)
    save_file(state, folder / "model.safetensors.part", metadata={"format": "pt"})
    for name in ("model.safetensors", "config.json"):
        (folder / f"{name}.part").replace(folder / name)
