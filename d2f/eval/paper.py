"""Figures that the paper publishes (arXiv 2508.09192), beside which a run puts its own.

Tables 1 and 2, and 5 and 7 for the cache alone: eight A100 with 40 GB, one problem at a time,
transformers. LLaDA's tokens are counted otherwise than Dream's; see :mod:`d2f.eval.answers`.
"""

from dataclasses import dataclass

from d2f.config import D2FConfig, DecodeConfig, decoder_name

CACHE_ONLY = "D2F, cache only"
METHODS = {
    "vanilla": "vanilla",
    "fast-dllm-prefix": "Fast-dLLM prefix",
    "fast-dllm-dual": "Fast-dLLM dual",
    "d2f": "D2F",
    "ar": "AR",
}
TASKS = ("gsm8k", "mbpp", "humaneval", "math")


@dataclass(frozen=True)
class Published:
    """A cell of the table: tokens/s, seconds a problem, tokens an answer, percent right."""

    tokens_per_second: float
    latency: float
    length: float
    score: float


def _table(text: str) -> dict[str, dict[str, Published]]:
    """Methods by task, of lines of cells."""
    rows = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return {
        method: {
            task: Published(*map(float, cell.split()))
            for task, cell in zip(TASKS, cells, strict=True)
        }
        for method, *cells in rows
    }


LLADA = _table("""
vanilla          |  7.2 32.3 231 77.4 |  0.9 71.4  65 39.0 |  2.8 38.8 107 36.0 | 21.1 11.5 243 23.7
dLLM-Cache       | 20.1 11.5 231 77.5 |  2.3 28.3  66 37.0 |  4.5 23.3 104 39.0 | 26.9  9.1 246 23.2
Fast-dLLM prefix | 33.3  7.0 232 77.8 | 13.0  4.9  64 37.6 | 13.7  7.4 102 38.4 | 47.7  5.2 246 22.4
Fast-dLLM dual   | 35.2  6.6 232 78.9 | 15.3  3.8  58 36.4 | 19.2  5.2 100 35.4 | 42.5  5.8 246 22.4
D2F, cache only  | 17.5  8.3 145 78.1 | 18.1  3.8  69 37.6 | 28.0  4.8 135 40.2 | 30.6 12.6 385 29.6
D2F              | 52.5  2.8 144 77.3 | 47.6  1.4  68 38.0 | 81.6  1.6 133 40.2 | 90.2  4.3 384 29.1
""")
DREAM = _table("""
vanilla          |  9.5 26.8 255 75.0 | 10.4 24.6 256 56.2 | 20.2 12.6 255 54.3 |  9.9 25.8 256 35.8
dLLM-Cache       | 26.0  9.8 255 72.0 | 25.5 10.0 256 52.6 | 23.2 11.0 255 55.5 | 12.7 20.2 256 34.5
Fast-dLLM prefix | 50.3  5.1 255 76.6 | 71.6  3.6 256 56.4 | 62.4  4.1 255 54.3 | 65.6  3.9 256 37.6
Fast-dLLM dual   | 49.8  5.1 255 75.0 | 73.2  3.5 256 51.0 | 60.0  4.3 255 53.0 | 67.0  3.8 256 37.1
D2F, cache only  | 40.7  6.3 256 77.8 | 40.5  5.9 240 54.2 | 43.6  5.1 222 53.7 | 39.6  6.5 256 35.9
D2F              | 91.2  2.8 256 77.6 |  105  2.3 240 55.2 | 73.2  3.1 227 54.3 | 98.8  2.6 256 35.4
""")
# By the repository of the diffusion model that the table is of.
PUBLISHED = {"GSAI-ML/LLaDA-8B-Instruct": LLADA, "Dream-org/Dream-v0-Base-7B": DREAM}


def method(config: DecodeConfig) -> str:
    """What the paper calls a decoder with these settings."""
    if isinstance(config, D2FConfig) and config.tau_add == 1:
        return CACHE_ONLY
    decoder = decoder_name(config)
    return METHODS.get(decoder, decoder)
