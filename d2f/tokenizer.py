"""Text to ids and back, over transformers' tokenizer classes and chat templates.

A thin protocol: decoders and pages need a prompt's ids, readable text, one token's text, and the
ids that stop an answer. Knows nothing of models.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
)

from d2f.errors import InvalidInput

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
# Ends of a turn in Llama 3's format and in ChatML. Published models use them and do not all say
# so: LLaDA's and Dream's files name only the end of a text.
TURN_ENDS = ("<|eot_id|>", "<|im_end|>")


class Tokenizer:
    """A model folder's tokenizer.

    Args:
        folder: holds ``tokenizer.json`` (and ``tokenizer_config.json``, ``chat_template.jinja``).
        stop_ids: ids that end an answer; the tokenizer's eos id is always among them, and so are
            the ends of a turn that it knows as special tokens.
    """

    def __init__(self, folder: Path | str, stop_ids: Iterable[int] = ()) -> None:
        self._hf = _load(Path(folder))
        # Also those without a role, such as Llama 3's header tokens.
        added = self._hf.added_tokens_decoder
        self._special = [token.content for token in added.values() if token.special]
        stops = {*stop_ids, *(i for i, token in added.items() if token.content in TURN_ENDS)}
        if self._hf.eos_token_id is not None:
            stops.add(self._hf.eos_token_id)
        self.stop_ids: tuple[int, ...] = tuple(sorted(stops))

    @property
    def vocab_size(self) -> int:
        """Number of known ids; a model's head may have more rows, which must never be chosen."""
        return len(self._hf)

    @property
    def end_id(self) -> int:
        """The token that ends a turn."""
        return self._hf.eos_token_id

    @property
    def pad_id(self) -> int:
        return self._hf.pad_token_id

    @property
    def mask_id(self) -> int | None:
        return self._hf.mask_token_id

    def encode(self, text: str) -> list[int]:
        """Plain text to ids, adding nothing. Special-token text raises ``ValueError``."""
        self._refuse_special(text)
        return self._hf.encode(text, add_special_tokens=False)

    def encode_raw(self, text: str) -> list[int]:
        """A prompt that a program wrote: in it special tokens' texts are these tokens.

        The tokenizer adds what it puts at the start of every text, if anything.
        """
        return self._hf.encode(text)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """A conversation to the ids of a prompt, ready for the assistant's answer.

        Args:
            messages: ``{"role": "user" | "assistant" | "system", "content": str}``, in order.

        Raises:
            ValueError: a role is none of these, content holds a special token's text (a mask or
                end token typed by a visitor would otherwise become that token), no template ships
                with the model, or its template refuses the chat.
        """
        for message in messages:
            if message["role"] not in ROLES:
                raise InvalidInput(f"role must be one of {ROLES}, got {message['role']!r}")
            self._refuse_special(message["content"])
        if self._hf.chat_template is None:
            raise InvalidInput("this tokenizer has no chat template; encode plain text instead")
        try:
            text = self._hf.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidInput(f"the model's chat template refuses this chat: {error}") from error
        return self._hf.encode(text, add_special_tokens=False)

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text; special tokens are left out."""
        return self._hf.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def token_text(self, token_id: int) -> str:
        """One token's text, special tokens by name; partial UTF-8 shows as U+FFFD."""
        return self._hf.decode([token_id], clean_up_tokenization_spaces=False)

    def _refuse_special(self, text: str) -> None:
        for token in self._special:
            if token in text:
                raise InvalidInput(f"text must not contain the special token {token!r}")


def _load(folder: Path) -> PreTrainedTokenizerBase:
    """A folder's tokenizer by transformers' own classes; code in the folder is never run."""
    named, model = (_json(folder / name) for name in ("tokenizer_config.json", "config.json"))
    if named.get("tokenizer_class") == "DreamTokenizer":
        # Published as code that is Qwen2's tokenizer under another name.
        return Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
    # transformers guesses at a config.json of a kind it does not know; the tokenizer needs none.
    foreign = model.get("model_type") in ("llada", "Dream")
    return AutoTokenizer.from_pretrained(
        str(folder),
        config=PreTrainedConfig() if foreign else None,
        local_files_only=True,
        trust_remote_code=False,
    )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
