"""The embedded models' tokenizer: byte-level BPE over the task grammars, every digit its own token.

Written in transformers' own files, so that its tokenizer classes load it. A vocabulary grows by
merges behind those it has: old ids stay, and a text's old tokens are only ever joined. Knows
nothing of models.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from d2f.strict_json import from_json, to_json
from d2f.tasks import draw

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


def corpus(problems_per_task: int, seed: int, tasks: Iterable[str]) -> Iterator[str]:
    """Training-split texts only: held-out problems never shape the vocabulary."""
    for task in tasks:
        for problem in islice(draw(task, "train", seed), problems_per_task):
            for turn in problem.turns:
                yield turn.prompt
                yield turn.answer


def train_tokenizer(folder: Path, texts: Iterable[str], size: int) -> None:
    """Train on texts and write ``tokenizer.json`` and its companions to ``folder``."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, MASK, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
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


def grow_tokenizer(source: Path, folder: Path, texts: Iterable[str], size: int) -> None:
    """Write the tokenizer of ``source`` to ``folder``, grown to ``size`` tokens over ``texts``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, folder / name)
    bpe = Tokenizer.from_file(str(source / "tokenizer.json"))
    pieces = Counter(
        piece for text in texts for piece, _ in bpe.pre_tokenizer.pre_tokenize_str(text)
    )
    words = {tuple(token.value for token in bpe.model.tokenize(p)): n for p, n in pieces.items()}
    data = from_json((source / "tokenizer.json").read_text())
    vocab, merges = data["model"]["vocab"], data["model"]["merges"]
    for pair in more_merges(words, size - bpe.get_vocab_size()):
        merges.append(list(pair))
        vocab["".join(pair)] = len(vocab)
    (folder / "tokenizer.json").write_text(to_json(data))


def more_merges(words: Mapping[tuple[str, ...], int], count: int) -> Iterator[tuple[str, str]]:
    """The next merges of BPE, most frequent pair first, over counted words of tokens so far."""
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    spelled, often = [list(word) for word in words], list(words.values())

    def tell(word: int, sign: int) -> None:
        for pair in pairwise(spelled[word]):
            pairs[pair] += sign * often[word]
            where[pair].add(word)

    for word in range(len(spelled)):
        tell(word, 1)
    for _ in range(count):
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] <= 0:
            return
        yield best
        for word in where.pop(best):
            tell(word, -1)
            spelled[word] = _joined(spelled[word], best)
            tell(word, 1)


def _joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


def old_pieces(tokenizer: Mapping[str, Any], known: int) -> dict[int, list[int]]:
    """Each token of a ``tokenizer.json`` beyond the first ``known`` ids, as ids of those."""
    vocab = tokenizer["model"]["vocab"]
    pieces: dict[int, list[int]] = {}
    for left, right in tokenizer["model"]["merges"]:
        halves = [pieces.get(vocab[half], [vocab[half]]) for half in (left, right)]
        if vocab[left + right] >= known:
            pieces[vocab[left + right]] = halves[0] + halves[1]
    return pieces
