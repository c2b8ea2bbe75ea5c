"""Published checkpoints: D2F's own models with their partners, and those of other families.

The presets here are those of the D2F paper (arXiv 2508.09192, Table 8).
"""

from dataclasses import replace

from d2f.catalogue.block_models import BLOCK_MODELS, QWEN_7B
from d2f.catalogue.entry import Adapter, Published, Repo
from d2f.config import D2FConfig, VanillaConfig
from d2f.shape import Shape

LLADA = Shape(
    vocab_size=126464,
    hidden_size=4096,
    intermediate_size=12288,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
)
LLAMA_3 = Shape(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
)

LLADA_PRESETS = {
    "gsm8k": D2FConfig(max_new_tokens=512, block_size=64, tau_add=0.7),
    "mbpp": D2FConfig(max_new_tokens=512, block_size=32, tau_add=0.9),
    "math": D2FConfig(max_new_tokens=512, block_size=32, tau_add=0.1),
    "humaneval": D2FConfig(max_new_tokens=512, block_size=32, tau_add=0.1),
}
DREAM_PRESETS = {
    "gsm8k": D2FConfig(max_new_tokens=256, block_size=32, tau_add=0.1),
    # Asked for 256, the released loop decodes whole blocks only: five of 48.
    "mbpp": D2FConfig(max_new_tokens=240, block_size=48, tau_add=0.1),
    "math": D2FConfig(max_new_tokens=256, block_size=64, tau_add=0.1),
    "humaneval": D2FConfig(max_new_tokens=256, block_size=32, tau_add=0.9, tau_conf=0.95),
}


def _llada(name: str, adapter: Adapter | None) -> Published:
    return Published(
        name=name,
        repo=Repo("GSAI-ML/LLaDA-8B-Instruct", "08b83a6feb34df1a6011b80c3c00c7563e963b07", "MIT"),
        shape=LLADA,
        chat="Llama 3's format",
        decoder="d2f" if adapter else "vanilla",
        adapter=adapter,
        presets=LLADA_PRESETS if adapter else {},
        partner="llama-3-8b-instruct",
    )


def _dream(name: str, repo: Repo, partner: str, adapter: Adapter | None) -> Published:
    return Published(
        name=name,
        repo=repo,
        shape=QWEN_7B,
        chat="ChatML",
        decoder="d2f" if adapter else "vanilla",
        adapter=adapter,
        presets=DREAM_PRESETS if adapter else {},
        partner=partner,
    )


def _vanilla(
    name: str, repo: Repo, shape: Shape, chat: str, partner: str, note: str, threshold: float | None
) -> Published:
    """A model without an adapter of D2F: it decodes the vanilla way, with a threshold if given."""
    config = VanillaConfig(max_new_tokens=256, block_size=32)
    if threshold is not None:
        config = replace(config, rule="confidence", tau_conf=threshold)
    return Published(
        name=name,
        repo=repo,
        shape=shape,
        chat=chat,
        decoder="vanilla",
        presets={"authors": config} if threshold else {},
        partner=partner,
        note=note,
    )


def _qwen(name: str, repo: Repo) -> Published:
    return Published(
        name=name,
        repo=repo,
        shape=QWEN_7B,
        chat="ChatML",
        decoder="ar",
    )


def _lora(name: str, licence: str) -> Adapter:
    # No commit of these repositories is known to us: their branch may move.
    return Adapter(repo=Repo(f"SJTU-Deng-Lab/{name}", "main", licence))


_DREAM_BASE = Repo(
    "Dream-org/Dream-v0-Base-7B", "6572adb5535263e4d1a337b56942ba48b6dee2a9", "Apache-2.0"
)
_DREAM_INSTRUCT = Repo(
    "Dream-org/Dream-v0-Instruct-7B", "05334cb9faaf763692dcf9d8737c642be2b2a6ae", "Apache-2.0"
)
_UNKNOWN = "see its model card"
_DIFFUCODER = Repo("apple/DiffuCoder-7B-Instruct", "main", _UNKNOWN)
_MODELS = [
    _llada("d2f-llada-8b-instruct", _lora("D2F_LLaDA_Instruct_8B_Lora", _UNKNOWN)),
    _llada("llada-8b-instruct", None),
    Published(
        name="llama-3-8b-instruct",
        repo=Repo(
            "meta-llama/Meta-Llama-3-8B-Instruct",
            "8afb486c1db24fe5011ec46dfbe5b5dccdb575c2",
            "Llama 3 Community",
            gated=True,
        ),
        shape=LLAMA_3,
        chat="Llama 3's format",
        decoder="ar",
    ),
    _dream(
        "d2f-dream-7b-base", _DREAM_BASE, "qwen2.5-7b", _lora("D2F_Dream_Base_7B_Lora", _UNKNOWN)
    ),
    _dream("dream-7b-base", _DREAM_BASE, "qwen2.5-7b", None),
    _qwen(
        "qwen2.5-7b",
        Repo("Qwen/Qwen2.5-7B", "d149729398750b98c0af14eb82c78cfe92750796", "Apache-2.0"),
    ),
    # The paper has no table of settings for Dream-Instruct: those of Dream-Base stand in.
    _dream(
        "d2f-dream-7b-instruct",
        _DREAM_INSTRUCT,
        "qwen2.5-7b-instruct",
        _lora("D2F_Dream_Instruct_7B_Lora", "Apache-2.0"),
    ),
    _dream("dream-7b-instruct", _DREAM_INSTRUCT, "qwen2.5-7b-instruct", None),
    _qwen(
        "qwen2.5-7b-instruct",
        Repo("Qwen/Qwen2.5-7B-Instruct", "a09a35458c702b33eeacc393d103063234e8bc28", "Apache-2.0"),
    ),
    # The fourth adapter of D2F's lab; its card and licence have not been seen.
    replace(
        _dream(
            "d2f-diffucoder-7b-instruct",
            _DIFFUCODER,
            "qwen2.5-coder-7b-instruct",
            _lora("D2F_DiffuCoder_Instruct_7B_Lora", _UNKNOWN),
        ),
        presets={"lopa": D2FConfig(max_new_tokens=512, block_size=32, tau_add=0.3)},
        note="preset: the settings that LoPA's scripts (arXiv 2512.16229) run it with",
    ),
    _dream("diffucoder-7b-instruct", _DIFFUCODER, "qwen2.5-coder-7b-instruct", None),
    _vanilla(
        "llada-1.5",
        Repo("GSAI-ML/LLaDA-1.5", "main", _UNKNOWN),
        LLADA,
        "Llama 3's format",
        "llama-3-8b-instruct",
        "not trained for D2F: under it, others report, it gives masks only (Diffulex issue 39)",
        None,
    ),
    _vanilla(
        "llada-8b-base",
        Repo("GSAI-ML/LLaDA-8B-Base", "main", "MIT"),
        LLADA,
        "none",
        "llama-3-8b-instruct",
        "a base model: it completes text",
        None,
    ),
    _vanilla(
        "dream-coder-7b-instruct",
        Repo("Dream-org/Dream-Coder-v0-Instruct-7B", "main", _UNKNOWN),
        QWEN_7B,
        "ChatML",
        "qwen2.5-coder-7b-instruct",
        "its authors order tokens by entropy",
        None,
    ),
    _vanilla(
        "dparallel-llada-8b-instruct",
        Repo("Zigeng/dParallel-LLaDA-8B-instruct", "main", "MIT"),
        LLADA,
        "Llama 3's format",
        "llama-3-8b-instruct",
        "authors: 8.5 times fewer steps on GSM8K (dParallel, arXiv 2509.26488)",
        0.5,
    ),
    _vanilla(
        "dparallel-dream-7b-instruct",
        Repo("Zigeng/dParallel_Dream_7B_Instruct", "main", "MIT"),
        QWEN_7B,
        "ChatML",
        "qwen2.5-7b-instruct",
        "authors: 3.02 tokens a forward on GSM8K at 82.1 %",
        0.5,
    ),
]
PUBLISHED: dict[str, Published] = {model.name: model for model in (*_MODELS, *BLOCK_MODELS)}
