"""Published models of block diffusion, with the autoregressive models they were made from.

Their cache is exact from birth: a block sees no later one. Presets named ``authors`` repeat how
their authors decode, one block at a time; ``pipelined`` opens the next block early, which only MBD
was trained for. None was run here: notes say whose figures they are.
"""

from dataclasses import replace

from d2f.catalogue.entry import Published, Repo
from d2f.config import D2FConfig
from d2f.shape import Diffusion, Shape

QWEN_7B = Shape(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    qkv_bias=True,
)
QWEN_1_5B = Shape(
    vocab_size=151936,
    hidden_size=1536,
    intermediate_size=8960,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    head_dim=128,
    qkv_bias=True,
    tied_head=True,
)
QWEN_0_5B = replace(
    QWEN_1_5B,
    hidden_size=896,
    intermediate_size=4864,
    num_layers=24,
    num_heads=14,
    head_dim=64,
)
SEED_CODER = Shape(
    vocab_size=155136,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
)


def _qwen3(hidden: int, wide: int, layers: int, heads: int, *, tied: bool) -> Shape:
    return Shape(
        vocab_size=151936,
        hidden_size=hidden,
        intermediate_size=wide,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=128,
        qk_norm=True,
        tied_head=tied,
    )


QWEN3 = {
    "0.6B": _qwen3(1024, 3072, 28, 16, tied=True),
    "1.7B": _qwen3(2048, 6144, 28, 16, tied=True),
    "4B": _qwen3(2560, 9728, 36, 32, tied=True),
    "8B": _qwen3(4096, 12288, 36, 32, tied=False),
    "14B": _qwen3(5120, 17408, 40, 40, tied=False),
    "32B": _qwen3(5120, 25600, 64, 64, tied=False),
}
APACHE, MIT, UNKNOWN = "Apache-2.0", "MIT", "see its model card"
# No commit of most repositories is known to us: their branch may move.
MAIN = "main"


def _ar(name: str, repo: str, licence: str, shape: Shape, *, thinks: bool = False) -> Published:
    return Published(
        name=name,
        repo=Repo(repo, MAIN, licence),
        shape=shape,
        chat="ChatML",
        decoder="ar",
        thinks=thinks,
    )


def _blocks(size: int, grid: str, threshold: float, active: int) -> D2FConfig:
    return D2FConfig(
        max_new_tokens=512,
        block_size=size,
        tau_conf=threshold,
        grid=grid,
        max_active_blocks=active,
    )


def _block_model(
    name: str,
    repo: Repo,
    shape: Shape,
    partner: str,
    diffusion: Diffusion,
    threshold: float,
    note: str,
    *,
    thinks: bool = False,
) -> Published:
    size, grid = diffusion.block_size or 32, diffusion.grid or "start"
    ahead = 4 if size <= 8 else 2
    return Published(
        name=name,
        repo=repo,
        shape=shape,
        chat="ChatML",
        decoder="d2f",
        diffusion=diffusion,
        presets={
            "authors": _blocks(size, grid, threshold, 1),
            "pipelined": _blocks(size, grid, threshold, ahead),
        },
        partner=partner,
        note=note,
        thinks=thinks,
    )


def _sdar(name: str, repo: str, size: str, licence: str, note: str, **more: bool) -> Published:
    """SDAR and what was trained from it: Qwen3's layers with a head of their own."""
    shape = replace(QWEN3[size], tied_head=False)
    decoding = Diffusion(logit_shift=False, grid="start", block_size=4)
    partner = f"qwen3-{size.lower()}"
    where = Repo(repo, MAIN, licence)
    return _block_model(name, where, shape, partner, decoding, 0.9, note, **more)


_DLLM = Diffusion(logit_shift=False, grid="remainder", block_size=32)
_DIFFCODER = Diffusion(mask_id=5, logit_shift=False, grid="start", block_size=4)
_FAST = Diffusion(mask_id=151665, logit_shift=True, grid="start", block_size=32)
_MBD = (
    "MBD's authors (arXiv 2606.29215): {} tokens a forward over GSM8K, MATH500, MBPP+, HumanEval+"
)
_SDAR_LICENCE = "Apache-2.0 by its card, MIT by its repository"

BLOCK_MODELS = [
    _block_model(
        "qwen2.5-coder-0.5b-bd3lm",
        Repo("dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1", MAIN, APACHE),
        QWEN_0_5B,
        "qwen2.5-coder-0.5b-instruct",
        _DLLM,
        0.9,
        "authors: HumanEval 39.0 %, MBPP 33.2 %, a token a step; disputed (dllm issue 88)",
    ),
    _block_model(
        "qwen3-0.6b-bd3lm",
        Repo("dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1", MAIN, APACHE),
        QWEN3["0.6B"],
        "qwen3-0.6b",
        _DLLM,
        0.9,
        "authors: GSM8K 46.3 %, HumanEval 46.3 %, a token a step; disputed (dllm issue 88)",
    ),
    _sdar("sdar-1.7b-chat", "JetLM/SDAR-1.7B-Chat", "1.7B", _SDAR_LICENCE, "not measured here"),
    _sdar("sdar-4b-chat", "JetLM/SDAR-4B-Chat", "4B", _SDAR_LICENCE, "not measured here"),
    _sdar(
        "sdar-8b-chat",
        "JetLM/SDAR-8B-Chat",
        "8B",
        _SDAR_LICENCE,
        _MBD.format("1.25, pipelined 2.00"),
    ),
    _sdar(
        "mbd-sdar-8b",
        "SJTU-DENG-Lab/MBD-Math-SDAR-8B-Chat-b4",
        "8B",
        MIT,
        _MBD.format("pipelined 2.42"),
    ),
    _sdar("trado-4b-instruct", "Gen-Verse/TraDo-4B-Instruct", "4B", UNKNOWN, "not measured here"),
    _sdar("trado-8b-instruct", "Gen-Verse/TraDo-8B-Instruct", "8B", UNKNOWN, "not measured here"),
    _block_model(
        "dreamreasoner-8b",
        Repo("Dream-org/DreamReasoner-8B", MAIN, APACHE),
        QWEN3["8B"],
        "qwen3-8b",
        Diffusion(logit_shift=False, grid="start", block_size=32),
        0.9,
        "its repository's id was not seen at its source; not measured here",
        thinks=True,
    ),
    _block_model(
        "stable-diffcoder-8b-instruct",
        Repo(
            "ByteDance-Seed/Stable-DiffCoder-8B-Instruct",
            "10cdaf9b486f1cf0273ad968459dbe2d21a1482a",
            MIT,
        ),
        SEED_CODER,
        "seed-coder-8b-instruct",
        _DIFFCODER,
        0.95,
        "authors: above Seed-Coder-8B on most sets of code; no speed is told",
    ),
    _block_model(
        "fast-dllm-v2-1.5b",
        Repo(
            "Efficient-Large-Model/Fast_dLLM_v2_1.5B",
            "25093b6f63300adfd57f72145083c8a528fe4f16",
            APACHE,
        ),
        QWEN_1_5B,
        "qwen2.5-1.5b-instruct",
        _FAST,
        0.9,
        "not measured here",
    ),
    _block_model(
        "fast-dllm-v2-7b",
        Repo("Efficient-Large-Model/Fast_dLLM_v2_7B", MAIN, APACHE),
        QWEN_7B,
        "qwen2.5-7b-instruct",
        _FAST,
        0.9,
        "authors: GSM8K 81.5 % at 2.21 tokens a forward, MATH 48.7 % at 2.61",
    ),
    *(
        _ar(f"qwen3-{size.lower()}", f"Qwen/Qwen3-{size}", APACHE, shape, thinks=True)
        for size, shape in QWEN3.items()
    ),
    _ar("qwen2.5-1.5b-instruct", "Qwen/Qwen2.5-1.5B-Instruct", APACHE, QWEN_1_5B),
    _ar("qwen2.5-coder-0.5b-instruct", "Qwen/Qwen2.5-Coder-0.5B-Instruct", APACHE, QWEN_0_5B),
    _ar("qwen2.5-coder-7b-instruct", "Qwen/Qwen2.5-Coder-7B-Instruct", APACHE, QWEN_7B),
    _ar("seed-coder-8b-instruct", "ByteDance-Seed/Seed-Coder-8B-Instruct", MIT, SEED_CODER),
]
