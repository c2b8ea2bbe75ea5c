"""Text to ids and back, over transformers' tokenizer classes and chat templates.

A thin protocol: decoders and pages need a prompt's ids, readable text, one token's text, and the
ids that stop an answer. Knows nothing of models.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import TemplateError
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    Qwen2Tokenizer,
)

from d2f.errors import D2FError, InvalidInput, LoadError, one_line
from d2f.model_files import read_json, reading
from d2f.text import MARKS, decoded

LOG = logging.getLogger(__name__)
Message = dict[str, str]
ROLES = ("system", "user", "assistant")
# Ends of a turn in Llama 3's format and in ChatML. Published models use them and do not all say
# so: LLaDA's and Dream's files name only the end of a text.
TURN_ENDS = ("<|eot_id|>", "<|im_end|>")
# What a tokenizer is made of; the last is no text.
JSON_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
TEXT_FILES = (*JSON_FILES, "config.json", "merges.txt", "vocab.txt", "chat_template.jinja")
MODEL_FILE = "tokenizer.model"
# Bytes as byte-level BPE spells them: those that are seen as themselves, others from U+0100 on.
_SEEN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_UNSEEN = sorted(set(range(256)) - set(_SEEN))
BYTES = {chr(byte): byte for byte in _SEEN} | {chr(256 + n): byte for n, byte in enumerate(_UNSEEN)}
# SentencePiece's name of a token of one byte.
BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
# Of the model types read here, those that transformers knows.
KNOWN_KINDS = ("llama", "qwen2", "qwen3")
# Encoded and decoded once at load: of letters, digits, bytes and an end of line.
SAMPLE = "Hello, 1 + 1 = 2? é 🙂\n"


class Tokenizer:
    """A model folder's tokenizer.

    Args:
        folder: holds ``tokenizer.json`` (and ``tokenizer_config.json``, ``chat_template.jinja``).
        stop_ids: ids that end an answer; the tokenizer's eos id is always among them, and so are
            the ends of a turn that it knows as special tokens.

    Raises:
        LoadError: a file is missing or damaged.

    Attributes:
        ids: all that are a token's; there may be gaps between them.
        end_id, pad_id: the token that ends a turn, and the one that fills up rows.
        mask_id, start_id: two that not every tokenizer has; the last begins a text.
    """

    def __init__(self, folder: Path | str, stop_ids: Iterable[int] = ()) -> None:
        with _stranger(LoadError, f"the tokenizer in {folder} cannot be loaded"):
            self._hf: Any = _load(Path(folder))
            self.ids = frozenset(self._hf.get_vocab().values())
            self.end_id: int = self._hf.eos_token_id
            self.pad_id: int = self._hf.pad_token_id
            self.mask_id: int | None = self._hf.mask_token_id
            self.start_id: int | None = self._hf.bos_token_id
            self._added = dict(self._hf.added_tokens_decoder)
            self.decode(self._hf.encode(SAMPLE, add_special_tokens=False))
            # What stands before a token keeps the space that it begins with.
            self._before: list[int] = self._hf.encode("a", add_special_tokens=False)
        # Also those without a role, such as Llama 3's header tokens.
        added = self._added.items()
        self._special = [t.content for _, t in added if t.special and t.content]
        stops = {*stop_ids, *(i for i, token in added if token.content in TURN_ENDS)}
        if self.end_id is not None:
            stops.add(self.end_id)
        self.stop_ids: tuple[int, ...] = tuple(sorted(stops))

    @property
    def vocab_size(self) -> int:
        """The highest id and one; a model's head may have more rows or fewer."""
        return max(self.ids, default=-1) + 1

    @property
    def rows(self) -> int:
        """How many rows a model needs for every id that text or the chat template becomes.

        A special token that neither becomes, as padding added for training, needs none.
        """
        roles = (self._hf.bos_token_id, self.end_id, self._hf.unk_token_id)
        special = {i for i, t in self._added.items() if t.special and i not in roles}
        return max({*(self.ids - special), *self._template_ids()}, default=-1) + 1

    def _template_ids(self) -> Iterator[int]:
        """Ids of chats with every role; templates that refuse one of these may take another."""
        for roles in (("user",), ("user", "assistant", "user"), ("system", "user")):
            try:
                yield from self.encode_chat([{"role": role, "content": "a"} for role in roles])
            except InvalidInput as error:
                LOG.info("%s: %s", "-".join(roles), error)

    @property
    def has_template(self) -> bool:
        """Whether it can write a chat."""
        return self._hf.chat_template is not None

    def encode(self, text: str) -> list[int]:
        """Plain text to ids, adding nothing. Special-token text raises ``InvalidInput``."""
        self._refuse_special(_text(text))
        return self._ids(text, add_special_tokens=False)

    def encode_within(self, text: str) -> list[int]:
        """Plain text to ids as it stands in the middle of an answer.

        At the start of a text SentencePiece would add the space of a word.
        """
        line, ids = self.encode("\n"), self.encode("\n" + text)
        return ids[len(line) :] if ids[: len(line)] == line else self.encode(text)

    def encode_raw(self, text: str, *, start: bool = True) -> list[int]:
        """A prompt that a program wrote: in it special tokens' texts are these tokens.

        ``start``: the tokenizer adds what it puts at the start of every text, if anything.
        """
        return self._ids(_text(text), add_special_tokens=start)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation to the ids of a prompt, ready for the assistant's answer.

        Args:
            messages: ``{"role": "user" | "assistant" | "system", "content": str}``, in order;
                content may be a list of parts ``{"type": "text", "text": str}``, which are joined.

        Raises:
            InvalidInput: a message is none of these, content holds a special token's text (a mask
                or end token typed by a visitor would otherwise become that token), no template
                ships with the model, or its template refuses the chat.
        """
        if isinstance(messages, str | Mapping) or not messages:
            got = one_line(repr(messages))
            raise InvalidInput(f"a chat must be a list of at least one message, got {got}")
        turns = [_turn(message) for message in messages]
        for turn in turns:
            self._refuse_special(turn["content"])
        return self.encode_raw(self.chat_text(turns), start=False)

    def chat_text(self, turns: Sequence[Message], *, begun: bool = False) -> str:
        """What the chat template makes of a chat that a program wrote, for :meth:`encode_raw`.

        ``begun``: the last turn is the beginning of the answer.

        Raises:
            InvalidInput: no template ships with the model, or it refuses the chat.
        """
        if not self.has_template:
            raise InvalidInput("this tokenizer has no chat template; encode plain text instead")
        with _stranger(InvalidInput, "the model's chat template refuses this chat"):
            text: str = self._hf.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=not begun,
                continue_final_message=begun,
            )
        return text

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text; special tokens are left out."""
        return self._string(list(ids), skip_special_tokens=True)

    def token_text(self, token_id: int, *, first: bool = False) -> str:
        """One token's text, special tokens by name; partial UTF-8 shows as U+FFFD.

        ``first``: at the start of an answer, where SentencePiece drops the space of a word.
        """
        if not first:
            before = self._string(self._before, skip_special_tokens=False)
            text = self._string([*self._before, token_id], skip_special_tokens=False)
            if text.startswith(before):
                return text.removeprefix(before)
        return self._string([token_id], skip_special_tokens=False)

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes of a token that may be only part of a character; None: it is text by itself."""
        name, text = str(self._hf.convert_ids_to_tokens(token_id)), self.token_text(token_id)
        byte = BYTE_TOKEN.fullmatch(name)
        if byte is not None and text != name:
            return bytes.fromhex(byte[1])
        if "\ufffd" in text and name and set(name) <= BYTES.keys():
            return bytes(BYTES[character] for character in name)
        return None

    def _ids(self, text: Any, *, add_special_tokens: bool) -> list[int]:
        with _stranger(InvalidInput, "the model's tokenizer cannot encode this text"):
            ids: list[int] = self._hf.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def _string(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        with _stranger(LoadError, "the model's tokenizer cannot decode its ids"):
            text: str = self._hf.decode(
                ids,
                skip_special_tokens=skip_special_tokens,
                clean_up_tokenization_spaces=False,
            )
        return text

    def _refuse_special(self, text: str) -> None:
        for token in self._special:
            if token in text:
                shown = one_line(repr(token))
                raise InvalidInput(f"text must not contain the special token {shown}")


def _turn(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise InvalidInput(f"a message must have role and content, got {one_line(repr(message))}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise InvalidInput(f"role must be one of {ROLES}, got {one_line(repr(role))}")
    parts = content if isinstance(content, list | tuple) else [{"type": "text", "text": content}]
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        raise InvalidInput(f"content must be text or parts of text, got {one_line(repr(content))}")
    return {"role": role, "content": "".join(_text(part.get("text")) for part in parts)}


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"content must be text, got {one_line(repr(text))}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("text must be Unicode, and holds half of a character (a surrogate)")
    return text


@contextmanager
def _stranger(told: type[D2FError], what: str) -> Iterator[None]:
    """Library code at work on a stranger's files; whatever it raises is told as ``told``."""
    try:
        yield
    except D2FError:
        raise
    # Deliberately all: of damaged files and hostile templates transformers, tokenizers and jinja2
    # make KeyError, TypeError, RecursionError or a bare Exception. They have no base class.
    except BaseException as error:
        # Rust's panics are no Exception, and their class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, TemplateError):  # foreseen, and told in the template's own words
            raise told(f"{what}: {one_line(error)}") from error
        LOG.warning("%s", what, exc_info=True)
        raise told(f"{what} ({type(error).__name__}: {one_line(error)})") from error


def _load(folder: Path) -> Any:
    """A folder's tokenizer by transformers' own classes; code in the folder is never run."""
    found = [name for name in JSON_FILES if (folder / name).is_file()]
    raw = {name: read_json(folder / name) for name in found}
    model = raw.get("tokenizer.json", {}).get("model")
    if isinstance(model, dict) and model.get("type") != "WordPiece":
        # tokenizers cuts this off every merge unchecked, and where a merge is without it, the
        # whole process ends. No family of models that is read here has one.
        if model.get("continuing_subword_prefix"):
            path = folder / "tokenizer.json"
            raise LoadError(f"{path}: a continuing_subword_prefix of merges is not supported")
    config = folder / "config.json"
    kind = read_json(config).get("model_type") if config.is_file() else None
    with _without_marks(folder) as plain:
        if raw.get("tokenizer_config.json", {}).get("tokenizer_class") == "DreamTokenizer":
            # Published as code that is Qwen2's tokenizer under another name.
            return Qwen2Tokenizer.from_pretrained(str(plain), local_files_only=True)
        return AutoTokenizer.from_pretrained(
            str(plain),
            # transformers guesses at a config.json of a kind it does not know; the tokenizer needs
            # none.
            config=None if kind in KNOWN_KINDS else PreTrainedConfig(),
            local_files_only=True,
            trust_remote_code=False,
        )


@contextmanager
def _without_marks(folder: Path) -> Iterator[Path]:
    """The folder; where a text begins with a mark, which transformers cannot read, a copy."""
    with reading(folder):
        texts = {n: (folder / n).read_bytes() for n in TEXT_FILES if (folder / n).is_file()}
    if not any(data.startswith(tuple(MARKS)) for data in texts.values()):
        yield folder
        return
    with TemporaryDirectory() as copy:
        for name, data in texts.items():
            try:
                text = decoded(data)
            except InvalidInput as error:
                raise LoadError(f"{folder / name}: {error}") from error
            Path(copy, name).write_text(text, encoding="utf-8", newline="")
        if (folder / MODEL_FILE).is_file():
            Path(copy, MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes())
        yield Path(copy)
