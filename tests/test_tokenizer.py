"""Text and ids: exact round trips, the chat format, and special tokens nobody can type in."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
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


def test_an_unknown_role_is_refused(tokenizer):
    with pytest.raises(ValueError, match="role must be .*'narrator'"):
        tokenizer.encode_chat([{"role": "narrator", "content": "Once"}])
