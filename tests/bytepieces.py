"""A tokenizer as Llama 2 has it: words begin with their space, the rest may be bytes."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

SPACE = "\u2581"
WORDS = ("The", "answer", "is", "hello", "world")
SPECIAL = ("<unk>", "<s>", "</s>")
TEMPLATE = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


def write_tokenizer(folder: Path) -> None:
    """``tokenizer.json`` with byte fallback, and a chat template."""
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), SPACE]
    pieces += sorted({*"".join(WORDS), *"0123456789.,:?!+=[]/INST"})
    merges = []
    for word in WORDS:
        made = SPACE
        for letter in word:
            merges.append((made, letter))
            made += letter
            pieces.append(made)
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    pairs = list(dict.fromkeys(merges))
    model = models.BPE(vocabulary, pairs, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
