"""Whatever a model folder or an adapter holds: it loads and answers, or is refused in one line.

Hundreds of seeded mutations of every file, of its bytes and of its values.
"""

import copy
import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import save_folder
from safetensors.torch import load_file, save_file

from d2f import ARConfig, generate, load_model
from d2f.errors import ComputeError, InvalidInput, LoadError

SEED, MUTATIONS = 7, 100
ASKED = [{"role": "user", "content": "2 + 3?"}]
DEEP: Any = []
for _ in range(90):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 0.5, -0.0, 2**31, 2**63, 10**30, 1e308),
    *("", "x", "4", "(", "\0", "line\nline " * 90, "../x", "<|end|>", "\ud800", "é🙂"),
    *([], {}, [0], ["x"], {"x": 1}, {"": None}, [[1, 2], [3, 4]], DEEP, list(range(999))),
]
MODEL = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "one.safetensors",
]
ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path
) -> Iterator[tuple[Path, Path]]:
    """A model that loads with its adapter."""
    root = tmp_path_factory.mktemp("fuzz")
    model, adapter = root / "model", root / "adapter"
    save_folder(model, tokenizer_folder, [4], causal=True, logit_shift=True)
    shard = "one.safetensors"
    (model / "model.safetensors").rename(model / shard)
    weights = load_file(model / shard)
    homes = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, shard)}
    (model / "model.safetensors.index.json").write_text(json.dumps(homes))
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 0]}))
    adapter.mkdir()
    key = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    rows, columns = weights["model.layers.0.self_attn.q_proj.weight"].shape
    parts = {key.format(i, "A"): torch.ones(4, columns) for i in range(2)}
    parts |= {key.format(i, "B"): torch.ones(rows, 4) for i in range(2)}
    save_file(parts, adapter / "adapter_model.safetensors")
    raw = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": None}
    (adapter / "adapter_config.json").write_text(json.dumps(raw))
    assert answer(model, adapter) is None
    yield model, adapter


def answer(model: Path, adapter: Path) -> str | None:
    """What is refused, in words; None: it loads and answers. Anything else is raised."""
    try:
        loaded = load_model(model, adapter=adapter)
        generate(loaded, loaded.tokenizer.encode_chat(ASKED), ARConfig(max_new_tokens=2))
    except (LoadError, InvalidInput, ComputeError) as error:
        return str(error)
    return None


def places(value: Any, rng: random.Random) -> tuple[Any, Any] | None:
    """A container somewhere within a value, the nearer the likelier, and one of its keys."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.4:
            return value, key
        value = inner
    return None


def mutated_value(data: bytes, rng: random.Random) -> bytes:
    """One value is another, one more, or gone."""
    raw = copy.deepcopy(json.loads(data))
    found = places(raw, rng)
    if found is None or rng.random() < 0.05:
        raw = rng.choice(VALUES)
    elif rng.random() < 0.15:
        del found[0][found[1]]
    elif rng.random() < 0.15 and isinstance(found[0], dict):
        found[0][rng.choice(["x", "", "d2f", "\n"])] = found[0].pop(found[1])
    else:
        found[0][found[1]] = rng.choice(VALUES)
    return json.dumps(raw, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """As an editor, a disk or a broken download leaves it."""
    # A header is the part of a file of weights that says something.
    place = rng.randrange(min(len(data), 4000))
    return rng.choice(
        [
            b"",
            data[:place],
            data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :],
            data[:place] + rng.randbytes(rng.randrange(1, 9)) + data[place:],
            data[:place] + rng.choice([b"NaN", b"-Infinity", b"1e999", b"{", b"9" * 5000]),
            b"\xef\xbb\xbf" + data,
            b"\xff\xfe" + data,
            data.decode("latin-1").encode("utf-16"),
            b"[" * 5_000,
            b'{"a":' * 5_000,
            data + data,
        ]
    )


@pytest.mark.parametrize("name", [*MODEL, *ADAPTER])
def test_a_mutated_file_is_refused_in_one_line_or_does_no_harm(
    name: str, folders: tuple[Path, Path]
) -> None:
    model, adapter = folders
    path = (adapter if name in ADAPTER else model) / name
    data, rng = path.read_bytes(), random.Random(f"{SEED} {name}")
    refused = 0
    try:
        for number in range(MUTATIONS):
            by_value = path.suffix == ".json" and rng.random() < 0.75
            mutation = (mutated_value if by_value else mutated_bytes)(data, rng)
            path.write_bytes(mutation)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    told = answer(model, adapter)
            except BaseException as error:
                shown = mutation if len(mutation) < 2000 else mutation[:2000]
                raise AssertionError(f"mutation {number} of {name}: {shown!r}") from error
            if told is not None:
                refused += 1
                assert told.isprintable() and 10 < len(told) < 500, f"mutation {number}: {told!r}"
    finally:
        path.write_bytes(data)
    assert 0 < refused < MUTATIONS
    assert answer(model, adapter) is None
