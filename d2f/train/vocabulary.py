"""The embedded models' tokenizer: byte-level BPE over the task grammars, every digit its own token.

Written in transformers' own files, so that its tokenizer classes load it. Knows nothing of models.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from d2f.tasks import TASKS, draw

VOCAB_SIZE = 1536
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PAD, MASK, USER, ASSISTANT, END = (
    "<|endoftext|>",
    "<|mask|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# A word or one digit with its leading space, a run of punctuation, or white space.
PIECES = Regex(r" ?\p{L}+| ?\d| ?[^\s\p{L}\d]+|\n *| +")


def corpus(problems_per_task: int, seed: int) -> Iterator[str]:
    """Training-split texts only: held-out problems never shape the vocabulary."""
    for task in TASKS:
        for problem in islice(draw(task, "train", seed), problems_per_task):
            for turn in problem.turns:
                yield turn.prompt
                yield turn.answer


def train_tokenizer(folder: Path, problems_per_task: int = 5000, seed: int = 0) -> None:
    """Train on the grammars and write ``tokenizer.json`` and its companions to ``folder``."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, MASK, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(problems_per_task, seed), trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        mask_token=MASK,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    fast.save_pretrained(folder)
