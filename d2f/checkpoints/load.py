"""Names and folders in, a :class:`d2f.model.Model` out; and folders written as transformers does.

A folder holds ``config.json``, safetensors shards and the tokenizer's files, in the words and key
names of Llama, Qwen2, LLaDA or Dream (:mod:`d2f.checkpoints.config_json` and
:mod:`d2f.checkpoints.weight_names`). Everything that can be refused is refused from the headers of
its files: only then is memory taken, and each weight is read by itself, straight into its place.
PEFT's LoRA adapters are merged in float32 on the way. Every key must be used and every parameter
filled. No code of a checkpoint is run.
"""

import os.path
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from d2f.catalogue.pairs import local_folder, model_folder, model_name
from d2f.catalogue.published import PUBLISHED, Published
from d2f.checkpoints.config_json import config_json, model_config
from d2f.checkpoints.hub import cached, snapshot
from d2f.checkpoints.lora import Lora
from d2f.checkpoints.shards import AGAIN, Stored, open_shard, stored_weights
from d2f.checkpoints.weight_names import LAYOUTS, TRANSFORMERS, Layout, Slot, key_map
from d2f.errors import ComputeError, HubError, LoadError, one_line
from d2f.memory import free_memory, require_memory
from d2f.model import Model
from d2f.model_files import Fields, read_fields, read_json
from d2f.nn.attention import choose_backend
from d2f.nn.transformer import Transformer
from d2f.shape import ModelConfig, Shape
from d2f.strict_json import to_json
from d2f.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_ID = re.compile(r"(?P<id>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def load_model(
    name_or_folder: str | Path,
    *,
    adapter: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    attention: str = "auto",
) -> Model:
    """Load a model of the catalogue by name, any model folder, or a repository of the hub by id.

    Args:
        name_or_folder: a bare name of the catalogue is that model (a published one comes with its
            adapter, downloaded at need); ``./name`` and every ``Path`` is a folder. An id of the
            hub may end in ``@revision`` (without: its branch ``main``, which may move).
        adapter: folder of a PEFT LoRA adapter, or its id on the hub, merged in float32 before the
            cast to ``dtype``.
        dtype: "float32", "bfloat16" or "float16".
        attention: "auto", or one of :data:`d2f.nn.attention.BACKENDS`.

    Raises:
        InvalidInput: unknown name, no such device, an attention that cannot run there.
        LoadError: unsupported architecture, missing or left-over keys, an adapter for another base,
            a missing or damaged file; HubError: cannot be downloaded; TooLittleMemory.
    """
    if dtype not in DTYPES:
        raise LoadError(f"dtype must be one of {sorted(DTYPES)}, got {dtype!r}")
    published = _published(name_or_folder)
    free = free_memory(device)
    name = model_name(name_or_folder)
    if published is not None:
        # Before hours of downloading.
        shape = known_shape(published)
        require_memory(name, shape.memory(dtype), free, str(device), dtype)
        choose_backend(attention, device, DTYPES[dtype], shape.head_dim)
        folder, adapter = _download(published, adapter)
    else:
        if adapter is not None:
            adapter = find_adapter(adapter)
            check_base(adapter, _repository(name_or_folder))
        folder = find_folder(name_or_folder)
    raw = read_json(folder / "config.json")
    config, layout = model_config(raw), LAYOUTS[raw["model_type"]]
    require_memory(name, config.memory(dtype), free, str(device), dtype)
    stored, slots = stored_weights(folder), key_map(config, layout)
    if config.tied_head:
        stored = without_copied_head(stored, layout, folder)
    check_weights(stored, slots, folder)
    backend = choose_backend(attention, device, DTYPES[dtype], config.head_dim)
    lora = None
    if adapter is not None:
        lora = Lora(Path(adapter), {key: slot.shape for key, slot in slots.items()})
    tokenizer = Tokenizer(folder, _stop_ids(folder))
    check_ids(config, tokenizer, folder)
    net = empty_network(config, torch.device(device), DTYPES[dtype])
    net.attention = backend
    fill(net, stored, slots, lora)
    return Model(name, net.eval(), tokenizer)


def load_tokenizer(name_or_folder: str | Path) -> Tokenizer:
    """The tokenizer of :func:`load_model`'s model, without its weights; raises what that does."""
    published = _published(name_or_folder)
    folder = _download(published, None)[0] if published else find_folder(name_or_folder)
    return Tokenizer(folder, _stop_ids(folder))


def find_folder(name_or_folder: str | Path) -> Path:
    """The folder of an embedded model, of a path, or of a repository of the hub by its id."""
    return _from_hub(name_or_folder, "model") or model_folder(name_or_folder)


def find_adapter(name_or_folder: str | Path) -> Path:
    """The folder of an adapter, by a path or by the id of a repository of the hub."""
    return _from_hub(name_or_folder, "adapter") or local_folder(name_or_folder)


def _from_hub(name_or_folder: str | Path, what: str) -> Path | None:
    """The snapshot of what an id of the hub names; None for what is no such id."""
    found = _hub_id(name_or_folder)
    if found is None:
        return None
    try:
        return snapshot(found["id"], found["revision"] or "main")
    except HubError as error:
        raise HubError(f"no {what} folder {str(name_or_folder)!r}; on the hub: {error}") from error


def _hub_id(name_or_folder: str | Path) -> re.Match[str] | None:
    """A text that names no folder here, as an id of the hub and perhaps a revision."""
    if isinstance(name_or_folder, Path) or os.path.isdir(name_or_folder):
        return None
    return HUB_ID.fullmatch(name_or_folder)


def _repository(name_or_folder: str | Path) -> str | None:
    """The name of the repository a model is from: by its id, or as its folder's path tells.

    A path tells by a folder of a published repository's name, the hub's cache included; None: no.
    """
    found = _hub_id(name_or_folder)
    if found is not None:
        return Path(found["id"]).name
    parts = local_folder(name_or_folder).resolve().parts
    # The hub's cache has folders models--OWNER--NAME.
    names = (part.rpartition("--")[2] for part in reversed(parts))
    return next((name for name in names if name in _published_names()), None)


def _published(name_or_folder: str | Path) -> Published | None:
    """The catalogue's model of a bare name; a ``Path`` is a folder whatever it is called."""
    return PUBLISHED.get(name_or_folder) if isinstance(name_or_folder, str) else None


def _published_names() -> set[str]:
    return {Path(model.repo.id).name for model in PUBLISHED.values()}


def _download(model: Published, adapter: str | Path | None) -> tuple[Path, Path | None]:
    """Folders of a published model and of the adapter to merge."""
    if model.adapter is None:
        other = None
        if adapter is not None:
            other = find_adapter(adapter)
            check_base(other, Path(model.repo.id).name)
        return snapshot(model.repo.id, model.repo.revision), other
    if adapter is not None:
        raise LoadError(f"model {model.name!r} has an adapter of its own, got {str(adapter)!r}")
    # The small one first: whatever is wrong with the network shows at once.
    own = snapshot(model.adapter.repo.id, model.adapter.repo.revision)
    return snapshot(model.repo.id, model.repo.revision), own


def check_base(adapter: Path, repository: str | None) -> None:
    """``ValueError`` if an adapter says that it was trained on another model of the catalogue.

    Models of one shape take each other's adapters without complaint, and answer nonsense.

    Args:
        repository: name of the base model's, without its owner; None: unknown, and nothing is said.
    """
    raw = read_json(adapter / "adapter_config.json")
    said = Path(str(raw.get("base_model_name_or_path") or "")).name
    if repository is not None and said in _published_names() and said != repository:
        raise LoadError(f"adapter in {adapter} was trained on {said}, not on {repository}")


def find_shape(name_or_folder: str | Path) -> Shape:
    """The shape of what :func:`load_model` takes; a published model's without a download."""
    published = _published(name_or_folder)
    if published is not None:
        return known_shape(published)
    return folder_shape(find_folder(name_or_folder))


def known_shape(model: Published) -> Shape:
    """The shape a published model's own config.json tells once it is downloaded, else ours."""
    folder = cached(model.repo.id, model.repo.revision)
    return model.shape if folder is None else folder_shape(folder)


def folder_shape(folder: Path) -> Shape:
    """The shape of the model in a folder, as its config.json tells."""
    return model_config(read_json(folder / "config.json"))


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
    """``ValueError`` unless a folder holds exactly the weights its config.json asks for."""
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


def empty_network(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """A network whose weights are allocated once, where and as they will be used, and not set."""
    with torch.device("meta"):
        net = Transformer(config).to(dtype)
    if config.tied_head:
        # Allocated by itself, it would no longer be the embedding.
        net.lm_head.weight = None
    net.to_empty(device=device)
    if config.tied_head:
        net.lm_head.weight = net.embed_tokens.weight
    return net.requires_grad_(False)


def fill(
    net: Transformer,
    stored: Mapping[str, Stored],
    slots: Mapping[str, Slot],
    lora: Lora | None = None,
) -> None:
    """Read every weight into its rows of the network, one at a time and one shard after another."""
    state = net.state_dict()
    homes: dict[Path, list[str]] = {}
    for key, weight in stored.items():
        homes.setdefault(weight.path, []).append(key)
    for path, keys in homes.items():
        with open_shard(path) as file:
            for key in keys:
                value = file.get_tensor(key)
                if lora is not None and key in lora:
                    value = value.float() + lora.delta(key)
                state[slots[key].key][slots[key].rows].copy_(value)


def split(net: Transformer, layout: Layout = TRANSFORMERS) -> dict[str, Tensor]:
    """The network's weights under published key names; inverse of :func:`fill`."""
    state = net.state_dict()
    return {key: state[slot.key][slot.rows] for key, slot in key_map(net.config, layout).items()}


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


def save_model(net: Transformer, folder: Path | str, stop_ids: list[int]) -> None:
    """Write ``config.json`` and ``model.safetensors`` (float16) that :func:`load_model` reads.

    The weights are also transformers' ``LlamaForCausalLM`` (``Qwen2ForCausalLM`` with biases).
    Files are replaced whole, so that an interrupted save loses nothing.

    Raises:
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
