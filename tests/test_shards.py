"""Model folders that are incomplete, cut short or at odds with themselves, told apart early."""

import json
from pathlib import Path

import pytest
import torch
from originals import llada_json, llada_state, rounded, write_folder
from safetensors.torch import load_file, save_file
from tiny import network

from d2f import load_model
from d2f.checkpoints.shards import stored_weights, tensor_shapes
from d2f.errors import LoadError
from d2f.model_files import read_json
from d2f.nn.transformer import Transformer

SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def folder(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards, of which nothing may be allocated or read: all is refused before."""
    net = rounded(network(640, mask_id=1))
    folder = write_folder(tmp_path / "model", llada_state(net), llada_json(net), tokenizer_folder)
    load_model(folder)

    def heavy(*_: object, **__: object) -> None:
        raise AssertionError("memory was taken before the folder was checked")

    monkeypatch.setattr(Transformer, "to_empty", heavy)
    return folder


def test_headers_tell_every_weight(folder: Path) -> None:
    weights = stored_weights(folder)
    assert len(weights) == 21
    assert weights["model.transformer.wte.weight"].shape == (640, 48)
    assert {weight.path.name for weight in weights.values()} == {
        f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)
    }


@pytest.mark.parametrize("kept", [0, 5, 200, 0.5, -1])
def test_a_half_downloaded_shard_is_told_as_such(kept: float, folder: Path) -> None:
    path = folder / SECOND
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(ValueError, match=rf"{SECOND} is cut short or damaged .*download it again"):
        load_model(folder)


def test_a_shard_that_is_not_there_is_named(folder: Path) -> None:
    (folder / SECOND).unlink()
    with pytest.raises(LoadError, match=rf"{SECOND} is missing: download it again"):
        load_model(folder)


def test_a_weight_in_two_shards_is_an_error(folder: Path) -> None:
    first = load_file(folder / "model-00001-of-00003.safetensors")
    second = load_file(folder / SECOND)
    key = sorted(first)[0]
    save_file(second | {key: first[key]}, folder / SECOND)
    with pytest.raises(ValueError, match=rf"{key} stands in both .*00001.* and .*00002"):
        load_model(folder)


def test_an_index_that_names_what_is_not_there_is_an_error(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.transformer.ln_f.bias"] = SECOND
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"ln_f.bias is in {SECOND}, and it is not"):
        load_model(folder)


def test_weights_left_over_and_missing_are_named_as_in_the_file(folder: Path) -> None:
    weights = load_file(folder / SECOND)
    key = next(key for key in weights if "blocks.0" in key)
    weights["model.transformer.blocks.0.q_norm.weight"] = weights.pop(key)
    save_file(weights, folder / SECOND)
    homes = {key: path.name for path in folder.glob("*.safetensors") for key in tensor_shapes(path)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    message = rf"missing \['{key}'\], left over \['model.transformer.blocks.0.q_norm.weight'\]"
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_quantised_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / SECOND)
    key = sorted(weights)[0]
    save_file(weights | {key: weights[key].to(torch.int8)}, folder / SECOND)
    with pytest.raises(ValueError, match=rf"floats of 16 bits or more, but {key} is I8"):
        load_model(folder)


def test_json_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(LoadError, match="config.json is missing"):
        read_json(path)
    path.write_text("<html>")
    with pytest.raises(ValueError, match="config.json is no valid JSON"):
        read_json(path)
