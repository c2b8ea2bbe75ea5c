"""Weights in other orders give the same numbers; rows nobody wants cost nothing and change none."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from folders import save_models
from sight import block_causal_ends
from test_transformer import ENDS, SHAPES, VOCAB, token_ids
from tiny import network
from torch import Tensor, nn

from d2f import ARConfig, D2FConfig, Model, generate, load_model
from d2f.catalogue.pairs import PAIRS
from d2f.checkpoints.save import save_model
from d2f.decode.common import how_it_runs
from d2f.nn.packing import PACKINGS, Packed, can_pack, check_packing, pack, usual_packing
from d2f.nn.threads import computing_with
from d2f.tasks import TASKS, draw
from d2f.tokenizer import Tokenizer

CPU = torch.device("cpu")
OTHERS = PACKINGS[1:]
PACKABLE = [dtype for dtype in (torch.float32, torch.bfloat16, torch.float16) if can_pack(dtype)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return save_models(tmp_path_factory.mktemp("models"), tokenizer_folder)


@pytest.mark.parametrize("packing", OTHERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_weights_give_the_same_logits(shape: str, packing: str) -> None:
    nets = [network(VOCAB, sharpness=1, **SHAPES[shape]) for _ in range(2)]
    pack(nets[1], packing)
    assert [net.packing for net in nets] == ["rows", packing]
    with torch.inference_mode():
        for ends in ENDS.values():
            plain, packed = (net.logits(net(token_ids(), ends)) for net in nets)
            torch.testing.assert_close(packed, plain, rtol=0, atol=4e-6)
    assert plain.std() > 0.5


@pytest.mark.parametrize("dtype", PACKABLE[1:])
def test_packed_weights_in_half_precision_are_no_further_off(dtype: torch.dtype) -> None:
    net, ends = network(VOCAB, sharpness=1), ENDS["block-causal"]
    with torch.inference_mode():
        exact = net.logits(net(token_ids(), ends))
        plain = net.to(dtype).logits(net(token_ids(), ends)).float()
        pack(net, "onednn")
        packed = net.logits(net(token_ids(), ends)).float()
    assert (packed - exact).abs().mean() < 1.1 * (plain - exact).abs().mean()
    assert (plain - exact).abs().mean() > 1e-4


@pytest.mark.parametrize("decoder", ["d2f", "ar"])
@pytest.mark.parametrize("task", TASKS)
def test_the_embedded_models_answer_alike_in_every_packing(decoder: str, task: str) -> None:
    name, config = PAIRS["mini"].lanes[decoder]
    problem = next(draw(task, "test", 5))
    found = set()
    for packing in PACKINGS:
        model = load_model(name, packing=packing)
        ids = model.tokenizer.encode_chat([{"role": "user", "content": problem.prompt}])
        found.add(generate(model, ids, config).token_ids)
    assert len(found) == 1


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_network_is_saved_as_it_was(packing: str, tmp_path: Path) -> None:
    net = network(VOCAB, qkv_bias=True)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    save_model(net, tmp_path / "before", [0])
    pack(net, packing)
    assert net.state_dict().keys() == before.keys()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    save_model(net, tmp_path / "after", [0])
    files = [tmp_path / name / "model.safetensors" for name in ("before", "after")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("packing", OTHERS)
def test_memory_holds_no_weight_twice(packing: str) -> None:
    net = network(VOCAB)
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    old = [weakref.ref(linear.weight.untyped_storage()) for linear in linears]
    kept = sum(weight.numel() for weight in net.state_dict().values())
    assert len(old) == 4 * 2 + 1
    del linears
    pack(net, packing)
    gc.collect()
    assert [storage for storage in old if storage() is not None] == []
    assert sum(weight.numel() for weight in net.state_dict().values()) == kept


@pytest.mark.parametrize("packing", OTHERS)
def test_a_head_that_is_the_embedding_stays(packing: str) -> None:
    net = network(VOCAB, tied_head=True)
    pack(net, packing)
    assert net.lm_head.weight is net.embed_tokens.weight
    assert net.lm_head.weight.is_contiguous()
    assert isinstance(net.layers[0].mlp.down_proj, Packed) == (packing == "onednn")


def test_a_packed_network_can_be_cast_and_leaves_no_cpu() -> None:
    net, ends = network(VOCAB, sharpness=1), ENDS["block-causal"]
    with torch.inference_mode():
        expected = net.logits(net(token_ids(), ends))
        pack(net, "onednn")
        halved = net.to(torch.bfloat16).logits(net(token_ids(), ends))
    assert halved.dtype == torch.bfloat16
    assert (halved.float() - expected).abs().mean() < 0.05
    with pytest.raises(ValueError, match="packed weights stay on the CPU"):
        net.to("meta")


def test_columns_can_be_trained() -> None:
    net = network(VOCAB)
    pack(net, "columns")
    net.requires_grad_(True)
    net.logits(net(token_ids(), None)).sum().backward()
    grad = net.layers[0].mlp.down_proj.weight.grad
    assert grad is not None and grad.abs().sum() > 0


def test_the_usual_packing_is_that_of_device_and_dtype() -> None:
    assert usual_packing(CPU, torch.float32) == "columns"
    half = "onednn" if torch.bfloat16 in PACKABLE else "rows"
    assert usual_packing(CPU, torch.bfloat16) == half
    assert usual_packing(torch.device("cuda"), torch.bfloat16) == "rows"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"packing": "tight"}, r"packing must be one of \('rows', 'columns', 'onednn'\).*'tight'"),
        ({"packing": "columns", "compile": True}, "'columns' is for weights neither quantised nor"),
    ],
)
def test_a_packing_that_cannot_be_is_refused(models: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_model(models / "mini-ar", **how)
    with pytest.raises(ValueError, match="packing 'onednn' is for a CPU, got device 'cuda'"):
        check_packing("onednn", torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", [[0], [8, 9, 17], [25]])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_states_of_wanted_rows_are_those_of_all(
    dtype: torch.dtype, wanted: list[int], qk_norm: bool
) -> None:
    """And keys and values of all rows are written."""
    net = network(VOCAB, qk_norm=qk_norm).to(dtype)
    ids, ends = token_ids(1, 26), block_causal_ends(0, 26, 11, 8, 37)
    caches = [net.new_cache(37), net.new_cache(37)]
    with torch.inference_mode():
        whole = net(ids, ends, caches[0])
        some = net(ids, ends, caches[1], 0, torch.tensor(wanted))
    assert some.shape == (1, len(wanted), net.config.hidden_size)
    near = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(some, whole[:, wanted], rtol=0, atol=near)
    for ours, theirs in zip(
        caches[1].keys + caches[1].values, caches[0].keys + caches[0].values, strict=True
    ):
        assert torch.equal(ours, theirs)


class Counting(nn.Module):
    """Notes with how many threads its rows are normed."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.seen: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(torch.get_num_threads())
        out: Tensor = self.norm(x)
        return out


def counting(tokenizer: Tokenizer, threads: int | None) -> tuple[Model, Counting]:
    net = network(tokenizer.vocab_size, causal=True)
    net.norm = Counting(net.norm)
    return Model("tiny", net, tokenizer, threads=threads), net.norm


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_model_computes_with_its_own_threads_and_leaves_the_others(
    tokenizer: Tokenizer, threads: int
) -> None:
    (model, seen), (other, usual) = counting(tokenizer, threads), counting(tokenizer, None)
    with computing_with(2):
        for each in (model, other, model):
            generate(each, [5, 6], ARConfig(max_new_tokens=3))
            assert torch.get_num_threads() == 2
    assert (seen.seen, usual.seen) == ({threads}, {2})
    assert how_it_runs(model, ARConfig())["threads"] == str(threads)


def test_lanes_that_run_at_once_compute_with_their_own_threads(tokenizer: Tokenizer) -> None:
    lanes = [counting(tokenizer, threads) for threads in (1, 2, 3)]
    together = Barrier(len(lanes))

    def run(model: Model) -> None:
        for _ in range(4):
            together.wait(30)
            generate(model, [5, 6], ARConfig(max_new_tokens=6))

    with ThreadPoolExecutor(len(lanes)) as pool:
        list(pool.map(run, [model for model, _ in lanes]))
    assert [seen.seen for _, seen in lanes] == [{1}, {2}, {3}]


def test_a_loaded_model_says_how_it_runs(models: Path) -> None:
    model = load_model(models / "mini-d2f", threads=3)
    assert model.threads == 3
    assert how_it_runs(model, D2FConfig()) == {
        "attention": "sdpa",
        "forward": "eager",
        "weights": "float32",
        "packing": "columns",
        "threads": "3",
    }
