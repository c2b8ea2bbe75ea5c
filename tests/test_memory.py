"""What fits is decided on numbers; and what loading takes at its peak, measured."""

import json
from pathlib import Path

import pytest
import torch
from originals import llada_json, write_folder
from tiny import network

from d2f import load_model
from d2f.catalogue.published import PUBLISHED
from d2f.catalogue.sizes import gigabytes
from d2f.checkpoints.weight_names import LLADA, key_map
from d2f.errors import InvalidInput, TooLittleMemory
from d2f.memory import free_memory, host_memory, require_memory
from d2f.nn.transformer import Transformer
from d2f.shape import ModelConfig

MEMINFO = "MemTotal:       2000 kB\nMemAvailable:   1000 kB\nSwapFree:  9 kB\n"


def test_enough_and_unknown_pass() -> None:
    require_memory("m", 100, 100, "cpu", "float32")
    require_memory("m", 100, None, "mps", "float32")


@pytest.mark.parametrize(
    ("dtype", "way"), [("float32", "load it in bfloat16"), ("bfloat16", "cuda:0': free some")]
)
def test_too_little_says_how_much_and_what_to_do(dtype: str, way: str) -> None:
    need = PUBLISHED["llada-8b-instruct"].shape.memory(dtype)
    message = rf"llada-8b-instruct needs about {gigabytes(need)} of memory in {dtype}, and 6\.0 GB"
    with pytest.raises(TooLittleMemory, match=message) as error:
        require_memory("llada-8b-instruct", need, 6_000_000_000, "cuda:0", dtype)
    assert way in str(error.value)


def test_needs_of_the_published_models() -> None:
    """Weights, 4,096 tokens of cache and logits; GB are 10^9 bytes."""
    needs = {name: gigabytes(model.shape.memory("bfloat16")) for name, model in PUBLISHED.items()}
    assert needs["llada-8b-instruct"] == "18 GB"
    assert needs["dream-7b-base"] == needs["qwen2.5-7b"] == "16 GB"
    assert needs["llama-3-8b-instruct"] == "17 GB"
    llada = PUBLISHED["llada-8b-instruct"].shape
    assert llada.memory("bfloat16", 1) - llada.memory("bfloat16", 0) == 524_288
    dream = PUBLISHED["dream-7b-base"].shape
    assert dream.memory("bfloat16", 1) - dream.memory("bfloat16", 0) == 57_344


def test_host_memory_is_what_machine_and_container_leave(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert host_memory(meminfo, tmp_path) is None
    meminfo.write_text(MEMINFO)
    assert host_memory(meminfo, tmp_path) == 1_024_000
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory(meminfo, tmp_path) == 1_024_000
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("300000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 50000\nactive_file 20000\n")
    assert host_memory(meminfo, tmp_path) == 270_000
    (tmp_path / "memory.max").write_text("9000000000\n")
    assert host_memory(meminfo, tmp_path) == 1_024_000


def test_free_memory_of_devices() -> None:
    free = free_memory("cpu")
    assert free is None or free > 0
    with pytest.raises(InvalidInput, match="device 'meta' is not there"):
        free_memory("meta")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda:3' is not there"):
            free_memory("cuda:3")


def test_free_memory_of_a_gpu_counts_what_torch_can_give_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a made-up machine with one GPU, of which torch keeps 3 bytes it does not use."""
    free = [7]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: free.append(free.pop() + 3))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free[0], 99))
    assert free_memory("cuda:0") == 10
    with pytest.raises(ValueError, match="device 'cuda:1' is not there: torch sees 1 CUDA GPU$"):
        free_memory("cuda:1")


def test_what_does_not_fit_is_refused_before_it_is_downloaded_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.checkpoints.plan.free_memory", lambda device: 1_000_000)
    with pytest.raises(TooLittleMemory, match="d2f-llada-8b-instruct needs about 18 GB"):
        load_model("d2f-llada-8b-instruct", dtype="bfloat16")
    net = network(640, mask_id=1)
    (tmp_path / "config.json").write_text(json.dumps(llada_json(net)))
    with pytest.raises(ValueError, match="needs about 0.0 GB of memory in float32"):
        load_model(tmp_path)


def peak() -> tuple[int, int]:
    """Most and present resident bytes of this process, file pages included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    most, now = (1024 * int(status[name].split()[0]) for name in ("VmHWM", "VmRSS"))
    return most, now


def reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not let a process reset its peak of resident memory")


def test_loading_takes_the_model_and_about_one_shard(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    """Peak resident memory, pages of the mapped file included; not two models."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_layers": 4, "head_dim": 64}
    heads = {"num_heads": 8, "num_kv_heads": 8, "max_length": 16}
    with torch.device("meta"):
        net = Transformer(ModelConfig(vocab_size=640, mask_id=1, **shape, **heads))
    state = {key: torch.zeros(slot.shape) for key, slot in key_map(net.config, LLADA).items()}
    model_size = sum(value.nbytes for value in state.values())
    folder = write_folder(
        tmp_path / "model",
        state,
        llada_json(net),
        tokenizer_folder,
        shards=8,
        dtype=torch.float32,
    )
    shard = max(path.stat().st_size for path in folder.glob("*.safetensors"))
    del state
    reset_peak()
    _, before = peak()
    model = load_model(folder)
    most, _ = peak()
    assert sum(parameter.nbytes for parameter in model.net.parameters()) == model_size
    assert model_size > 65_000_000 > 5 * shard
    assert most - before < model_size + shard + 15_000_000
