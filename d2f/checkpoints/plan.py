"""From folders to a plan: the second stage of loading, where everything is refused.

Reads only the headers of the files, so that a model that cannot run takes no memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from d2f.checkpoints.config_json import NOTHING_GIVEN, model_config
from d2f.checkpoints.lora import Lora
from d2f.checkpoints.resolve import Source
from d2f.checkpoints.shards import AGAIN, Stored, open_shard, stored_weights
from d2f.checkpoints.weight_names import LAYOUTS, Layout, Slot, key_map
from d2f.errors import InvalidInput, LoadError, one_line
from d2f.memory import free_memory, require_memory
from d2f.model_files import Fields, read_fields, read_json
from d2f.nn.attention import choose_backend
from d2f.nn.packing import check_packing, usual_packing
from d2f.nn.quantize import check_quantization
from d2f.run_options import RunOptions
from d2f.shape import Diffusion, ModelConfig, Shape
from d2f.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Plan:
    """A model that will load: its weights, where each goes, and what it runs with.

    ``slots`` are the network's rows by the names of the ``stored`` weights; ``backend`` is what
    attends, ``packing`` how the weights will lie in memory.
    """

    name: str
    config: ModelConfig
    tokenizer: Tokenizer
    stored: Mapping[str, Stored]
    slots: Mapping[str, Slot]
    lora: Lora | None
    backend: str
    packing: str


def check_fit(name: str, shape: Shape, options: RunOptions) -> str:
    """What attends, if a model of this shape can run as asked.

    A model to be quantised is loaded on the CPU first, so that it never lies whole on a GPU.

    Raises:
        InvalidInput: no such dtype or device, or an attention that cannot run there.
        LoadError: a quantisation that is not installed; TooLittleMemory: no room.
    """
    device, dtype, kind = options.device, options.dtype, options.quantize
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype must be one of {sorted(DTYPES)}, got {dtype!r}")
    if kind is not None:
        check_quantization(kind)
    need = shape.memory(dtype, weights=kind)
    require_memory(name, need, free_memory(device), device, kind or dtype)
    if kind is not None:
        require_memory(name, shape.memory(dtype), free_memory("cpu"), "cpu", dtype)
    return choose_backend(options.attention, device, DTYPES[dtype], shape.head_dim)


def choose_packing(options: RunOptions) -> str:
    """How the weights will lie in memory: by rows where something else arranges them.

    Raises:
        InvalidInput: they cannot lie as asked.
    """
    asked, device, dtype = options.packing, torch.device(options.device), DTYPES[options.dtype]
    if options.quantize or options.compile:
        if asked not in (None, "rows"):
            raise InvalidInput(f"packing {asked!r} is for weights neither quantised nor compiled")
        return "rows"
    if asked is None:
        return usual_packing(device, dtype)
    check_packing(asked, device, dtype)
    return asked


def make_plan(source: Source, options: RunOptions, given: Diffusion = NOTHING_GIVEN) -> Plan:
    """All there is to know of a model before memory is taken for it.

    Args:
        given: how it is decoded, where neither its files nor the catalogue say so.

    Raises:
        InvalidInput, LoadError: as :func:`d2f.load_model`.
    """
    folder = source.folder
    raw = read_json(folder / "config.json")
    config = model_config(raw, together(source, given))
    layout = LAYOUTS[raw["model_type"]]
    backend, packing = check_fit(source.name, config, options), choose_packing(options)
    stored, slots = stored_weights(folder), key_map(config, layout)
    if config.tied_head:
        stored = without_copied_head(stored, layout, folder)
    check_weights(stored, slots, folder)
    lora = None
    if source.adapter is not None:
        lora = Lora(source.adapter, {key: slot.shape for key, slot in slots.items()})
    tokenizer = folder_tokenizer(folder)
    if "d2f" not in raw:
        config = with_mask(config, tokenizer, folder)
    check_ids(config, tokenizer, folder)
    return Plan(source.name, config, tokenizer, stored, slots, lora, backend, packing)


def together(source: Source, given: Diffusion) -> Diffusion:
    """What the catalogue and options say."""
    try:
        return source.said.merged(given)
    except InvalidInput as error:
        raise LoadError(f"{source.name}: {error}") from error


def with_mask(config: ModelConfig, tokenizer: Tokenizer, folder: Path) -> ModelConfig:
    """The config of a diffusion model with the mask token, which the tokenizer alone may know.

    Raises:
        LoadError: nothing names it.
    """
    if config.causal or config.mask_id is not None:
        return config
    if tokenizer.mask_id is None:
        raise LoadError(f"no file of {folder} names the mask token: give its id by --mask-id")
    return replace(config, mask_id=tokenizer.mask_id)


def folder_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, with the ids that its files say end an answer."""
    return Tokenizer(folder, _stop_ids(folder))


def without_copied_head(
    stored: dict[str, Stored], layout: Layout, folder: Path
) -> dict[str, Stored]:
    """The weights of a tied model without the head, which some files hold as a copy.

    Raises:
        LoadError: it is another matrix than the embedding.
    """
    head, embedding = f"{layout.head}.weight", f"{layout.embedding}.weight"
    if not {head, embedding} <= stored.keys():
        return stored
    if not torch.equal(read_weight(stored, head), read_weight(stored, embedding)):
        raise LoadError(
            f"config.json of {folder} says that the head is the embedding, and {head} is another "
            "matrix: set tie_word_embeddings to false if the model was trained with it"
        )
    return {key: weight for key, weight in stored.items() if key != head}


def read_weight(stored: Mapping[str, Stored], key: str) -> Tensor:
    """One weight's values."""
    with open_shard(stored[key].path) as file:
        value: Tensor = file.get_tensor(key)
    return value


def check_weights(stored: Mapping[str, Stored], slots: Mapping[str, Slot], folder: Path) -> None:
    """``LoadError`` unless a folder holds exactly the weights its config.json asks for."""
    missing, unused = sorted(slots.keys() - stored.keys()), sorted(stored.keys() - slots.keys())
    if missing or unused:
        raise LoadError(
            f"weights of {folder} do not fit its config.json: "
            f"missing {one_line(missing[:4], 300)}, left over {one_line(unused[:4], 300)}"
        )
    for key, slot in slots.items():
        if stored[key].shape != slot.shape:
            raise LoadError(
                f"weights of {folder} do not fit its config.json: "
                f"{key} is {one_line(stored[key].shape)}, not {slot.shape}"
            )


def check_ids(config: ModelConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """``LoadError`` if model and tokenizer do not belong together: a file is missing or wrong.

    A tokenizer whose added tokens are not found gives them ids of its own, without a word.
    """
    if tokenizer.rows > config.vocab_size:
        raise LoadError(
            f"the tokenizer of {folder} needs {tokenizer.rows} rows and the model has "
            f"{config.vocab_size}: tokens were added to the one and not to the other"
        )
    if tokenizer.mask_id not in (None, config.mask_id) and config.mask_id is not None:
        raise LoadError(
            f"the mask token is {config.mask_id} in config.json and {tokenizer.mask_id} in the "
            f"tokenizer of {folder}: {AGAIN}"
        )


class _Stops(Fields):
    eos_token_id: int | list[int] | None = None


def _stop_ids(folder: Path) -> list[int]:
    """Ids that config.json and generation_config.json say end an answer."""
    found: list[int] = []
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            stops = read_fields(_Stops, read_json(folder / name), name).eos_token_id
            found += stops if isinstance(stops, list) else [] if stops is None else [stops]
    # Some files say -1 for none.
    return [stop for stop in found if stop >= 0]
