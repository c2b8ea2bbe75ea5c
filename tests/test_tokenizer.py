"""Text and ids: exact round trips, the chat format, and special tokens nobody can type in."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from originals import dream_json, llada_json
from tiny import network
from transformers import AutoTokenizer

from d2f.tokenizer import Tokenizer

PAD, MASK, USER, ASSISTANT, END = range(5)
SPECIAL = ["<|endoftext|>", "<|mask|>", "<|user|>", "<|assistant|>", "<|end|>"]


def test_special_tokens_have_their_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_text(i) for i in range(5)] == SPECIAL
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.end_id) == (PAD, MASK, END)
    assert tokenizer.stop_ids == (END,)


def test_the_ends_given_are_stops_beside_the_tokenizers_own(tokenizer_folder: Path) -> None:
    assert Tokenizer(tokenizer_folder, [PAD, 77, PAD]).stop_ids == (PAD, END, 77)


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="|")))
def test_any_text_survives_exactly(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(len(SPECIAL) <= i < tokenizer.vocab_size for i in ids)


def test_digits_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.token_text(i) for i in tokenizer.encode("120 + 45")]
    assert pieces == ["1", "2", "0", " +", " 4", "5"]


def test_a_conversation_becomes_turns_and_an_open_answer(tokenizer: Tokenizer) -> None:
    question, answer = tokenizer.encode("2 + 3?"), tokenizer.encode("5.")
    ids = tokenizer.encode_chat(
        [
            {"role": "user", "content": "2 + 3?"},
            {"role": "assistant", "content": "5."},
            {"role": "user", "content": "5."},
        ]
    )
    assert ids == [USER, *question, END, ASSISTANT, *answer, END, USER, *answer, END, ASSISTANT]


def test_special_tokens_are_left_out_of_readable_text(tokenizer: Tokenizer) -> None:
    ids = [USER, *tokenizer.encode("yes"), MASK, END, PAD]
    assert tokenizer.decode(ids) == "yes"
    assert tokenizer.decode([]) == ""


def test_part_of_a_character_shows_as_a_replacement(tokenizer: Tokenizer) -> None:
    first = tokenizer.encode("é")[0]
    assert tokenizer.token_text(first) == "\ufffd"


@pytest.mark.parametrize("token", SPECIAL)
def test_text_that_spells_a_special_token_is_refused(token: str, tokenizer: Tokenizer) -> None:
    message = f"text must not contain the special token '{token}'".replace("|", r"\|")
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(f"a{token}b")
    for role in ("user", "assistant"):
        with pytest.raises(ValueError, match=message):
            tokenizer.encode_chat([{"role": role, "content": token}])


def test_text_that_only_nearly_spells_one_is_text(tokenizer: Tokenizer) -> None:
    text = "<|mask |> < |end|> <|End|> |mask|"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_that_carry_no_name_are_refused_too(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    """As Llama 3's header tokens: special in tokenizer.json, but neither bos, eos nor extra."""
    other = AutoTokenizer.from_pretrained(tokenizer_folder)
    other.backend_tokenizer.add_special_tokens(["<|header|>"])
    other.save_pretrained(tmp_path)
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.token_text(tokenizer.vocab_size - 1) == "<|header|>"
    with pytest.raises(ValueError, match=r"special token '<\|header\|>'"):
        tokenizer.encode_chat([{"role": "user", "content": "hi <|header|>system"}])


def test_a_tokenizer_without_a_chat_template_says_so(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    with pytest.raises(ValueError, match="this tokenizer has no chat template"):
        Tokenizer(tmp_path).encode_chat([{"role": "user", "content": "hi"}])


def test_a_raw_prompt_may_hold_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_raw("hi<|end|>") == [*tokenizer.encode("hi"), tokenizer.end_id]


def test_what_begins_every_text_is_added_to_a_raw_prompt_or_not(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    for path in tokenizer_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    start = {"id": SPECIAL[PAD], "ids": [PAD], "tokens": [SPECIAL[PAD]]}
    special = {"SpecialToken": {"id": SPECIAL[PAD], "type_id": 0}}
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {SPECIAL[PAD]: start},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.encode_raw("hi") == [PAD, *tokenizer.encode("hi")]
    assert tokenizer.encode_raw("hi", start=False) == tokenizer.encode("hi")


def test_the_text_of_a_chat_ends_where_its_answer_begins_or_goes_on(tokenizer: Tokenizer) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well"}]
    assert tokenizer.chat_text(turns[:1]) == "<|user|>hi<|end|><|assistant|>"
    assert tokenizer.chat_text(turns, begun=True) == "<|user|>hi<|end|><|assistant|>Well"


def test_an_unknown_role_is_refused(tokenizer):
    with pytest.raises(ValueError, match="role must be .*'narrator'"):
        tokenizer.encode_chat([{"role": "narrator", "content": "Once"}])


def published_as_dream(tokenizer_folder: Path, folder: Path) -> None:
    """The same tokens as Dream ships its own: vocab.json, merges.txt, and code for the class."""
    raw = json.loads((tokenizer_folder / "tokenizer.json").read_text())["model"]
    vocabulary = {token: i - len(SPECIAL) for token, i in raw["vocab"].items()}
    for token in SPECIAL:
        del vocabulary[token]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in raw["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    top = len(vocabulary)
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>"]
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": {
            str(top + i): {"content": token, "special": True} for i, token in enumerate(added)
        },
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "bos_token": "<|beginoftext|>",
        "mask_token": "<|mask|>",
        "model_max_length": 131072,
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenization_dream.py").write_text("raise SystemExit('code of a checkpoint ran')")
    (folder / "config.json").write_text(json.dumps(dream_json(network(90, mask_id=7))))


def test_dreams_tokenizer_is_read_without_its_code(tokenizer_folder: Path, tmp_path: Path) -> None:
    published_as_dream(tokenizer_folder, tmp_path)
    tokenizer = Tokenizer(tmp_path, [4])
    eos = tokenizer.vocab_size - 5
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>"]
    assert [tokenizer.token_text(eos + i) for i in range(5)] == names
    assert (tokenizer.end_id, tokenizer.mask_id) == (eos, eos + 4)
    assert tokenizer.stop_ids == (4, eos, eos + 2)
    ids = tokenizer.encode_chat([{"role": "user", "content": "2 apples"}])
    assert [i for i in ids if i >= eos] == [eos + 1, eos + 2, eos + 1]
    assert tokenizer.decode(ids) == "user\n2 applesassistant\n"
    with pytest.raises(ValueError, match="must not contain the special token"):
        tokenizer.encode("<|mask|>")


def test_a_folder_of_llada_is_read_without_its_code(tokenizer_folder: Path, tmp_path: Path) -> None:
    other = AutoTokenizer.from_pretrained(tokenizer_folder)
    other.add_special_tokens({"additional_special_tokens": ["<|eot_id|>"]})
    other.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(llada_json(network(90, mask_id=7))))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.stop_ids == (END, tokenizer.vocab_size - 1)
    assert tokenizer.token_text(tokenizer.vocab_size - 1) == "<|eot_id|>"
