"""Text to ids and back, over transformers' tokenizer classes and chat templates.

A thin protocol: decoders and pages need a prompt's ids, readable text, one token's text, and the
ids that stop an answer. Knows nothing of models.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import AutoTokenizer

Message = dict[str, str]
ROLES = ("system", "user", "assistant")


class Tokenizer:
    """A model folder's tokenizer.

    Args:
        folder: holds ``tokenizer.json`` (and ``tokenizer_config.json``, ``chat_template.jinja``).
        stop_ids: ids that end an answer; the tokenizer's eos id is always among them.
    """

    def __init__(self, folder: Path | str, stop_ids: Iterable[int] = ()) -> None:
        self._hf = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        stops = set(stop_ids)
        if self._hf.eos_token_id is not None:
            stops.add(self._hf.eos_token_id)
        self.stop_ids: tuple[int, ...] = tuple(sorted(stops))
        # Also those without a role, such as Llama 3's header tokens.
        added = self._hf.added_tokens_decoder.values()
        self._special = [token.content for token in added if token.special]

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

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """A conversation to the ids of a prompt, ready for the assistant's answer.

        Args:
            messages: ``{"role": "user" | "assistant" | "system", "content": str}``, in order.

        Raises:
            ValueError: a role is none of these, content holds a special token's text (a mask or
                end token typed by a visitor would otherwise become that token), or no template
                ships with the model.
        """
        for message in messages:
            if message["role"] not in ROLES:
                raise ValueError(f"role must be one of {ROLES}, got {message['role']!r}")
            self._refuse_special(message["content"])
        if self._hf.chat_template is None:
            raise ValueError("this tokenizer has no chat template; encode plain text instead")
        text = self._hf.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
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
                raise ValueError(f"text must not contain the special token {token!r}")
