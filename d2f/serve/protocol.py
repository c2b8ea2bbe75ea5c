"""What clients may ask. Knows no HTTP server and no model.

Clients send many fields that ask for nothing: these are taken. Strict otherwise: a value that would
change the answer and cannot be followed is refused, not ignored. ``null`` means "not given".
"""

import codecs
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from d2f.config import DecodeConfig, config_from_dict, config_to_dict, decoder_name
from d2f.errors import InvalidInput
from d2f.serve.refused import Refused
from d2f.strict_json import to_json
from d2f.text import plain_text
from d2f.tokenizer import Message

MAX_BODY = 1_048_576  # bytes
MAX_MESSAGES = 256
MAX_TEXT = 262_144  # characters of one message or prompt
MAX_STOP = 1000  # characters of a stop sequence
MAX_INTEGER, MAX_SEED = 2**31 - 1, 2**63 - 1
# The two forms of a text in JSON, which are no part of a field's name.
TEXT, LIST = "as text", "as list"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        """Many clients write a field that was not given as null, known here or not."""
        if not isinstance(data, dict):
            return data
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {name: each for name, each in data.items() if each is not None or name in needed}


def _only(why: str, *neutral: Any) -> BeforeValidator:
    """A field of which only values that change nothing are taken."""

    def check(value: Any) -> Any:
        # In Python, though not in JSON, true equals 1.
        if any(
            value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral
        ):
            return value
        sent = " or ".join(map(to_json, neutral))
        advice = f"{why}; leave it out" + (f" or send {sent}" if sent else "")
        raise InvalidInput(advice)

    return BeforeValidator(check)


def _text_or_list(value: Any) -> str:
    return LIST if isinstance(value, list) else TEXT


def _up_to(most: int) -> BeforeValidator:
    """One sequence or several; an empty one stops nothing."""

    def listed(value: Any) -> Any:
        several = value if isinstance(value, list) else [value]
        several = [each for each in several if each is not None and each != ""]
        if len(several) > most:
            raise InvalidInput(f"at most {most} sequences are taken, got {len(several)}")
        return several

    return BeforeValidator(listed)


def _one_prompt(value: Any) -> Any:
    """The one prompt of a list of prompts."""
    if not isinstance(value, list) or not value or isinstance(value[0], int):
        return value
    if len(value) > 1:
        raise InvalidInput("a request is one prompt; send each on its own")
    return value[0]


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(plain_text)]
Ids = Annotated[list[Annotated[int, Field(ge=0, le=MAX_INTEGER)]], Field(max_length=MAX_TEXT)]
Pair = Annotated[tuple[int, int], Field(strict=False)]
Stops = list[Annotated[str, Field(max_length=MAX_STOP)]]
NoTools = Annotated[Any, _only("this service calls no tools", [])]
NoChoice = Annotated[Any, _only("this service calls no tools", "none", "auto")]
NoPenalty = Annotated[Any, _only("decoding knows no penalties", 0)]
NoFiles = Annotated[Any, _only("the model reads and writes text", [])]


class TextPart(_Strict):
    """A part of a message's content; of OpenAI's kinds of parts, only text."""

    type: Literal["text"]
    text: Text
    cache_control: Any = None


class ChatMessage(_Strict):
    """One message of a chat; of fields that clients send back, those that are not empty count."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[Text, Tag(TEXT)]
        | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES), Tag(LIST)],
        Discriminator(_text_or_list),
    ]
    name: Any = None
    type: Annotated[Any, _only("messages are text", "text", "message")] = None
    tool_calls: NoTools = None
    function_call: NoTools = None
    annotations: NoFiles = None
    audio: NoFiles = None
    refusal: Annotated[Any, _only("a refusal is not read", "")] = None

    def plain(self) -> Message:
        """As the tokenizer takes it: ``developer`` is the newer name of ``system``."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return {"role": role, "content": self.content}
        return {"role": role, "content": "".join(part.text for part in self.content)}


class StreamOptions(_Strict):
    """``include_usage`` asks for a last chunk with token counts."""

    include_usage: bool = False
    include_obfuscation: Any = None
    continuous_usage_stats: Annotated[Any, _only("counts come once, at the end", False)] = None


Chat = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


class _Asked(_Strict):
    """What both kinds of completions share; ``settings`` are the decoder's own, by name.

    ``infill`` is the answer with gaps (:mod:`d2f.infill`), which says how long it is.
    What is left out takes the service's defaults. ``source`` is the field that holds the prompt.
    """

    source: ClassVar[str]

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Annotated[Stops, _up_to(4)] = []
    settings: dict[str, Any] = {}
    infill: Text | None = None
    # No effect, whatever the value: they name the caller, or ask for another service's conduct.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    parallel_tool_calls: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    request_id: Any = None
    priority: Any = None
    # No effect, with these values alone. Those from ``min_p`` on are vLLM's.
    n: Annotated[Any, _only("a request gets one answer", 1)] = None
    best_of: Annotated[Any, _only("a request gets one answer", 1)] = None
    echo: Annotated[Any, _only("an answer does not repeat its prompt", False)] = None
    logit_bias: Annotated[Any, _only("tokens cannot be weighted", {})] = None
    presence_penalty: NoPenalty = None
    frequency_penalty: NoPenalty = None
    response_format: Annotated[Any, _only("answers are free text", {"type": "text"})] = None
    min_p: Annotated[Any, _only("decoding knows no min_p", 0)] = None
    min_tokens: Annotated[Any, _only("answers have no least length", 0)] = None
    repetition_penalty: Annotated[Any, _only("decoding knows no penalties", 1)] = None
    length_penalty: Annotated[Any, _only("there is no beam search", 1)] = None
    use_beam_search: Annotated[Any, _only("there is no beam search", False)] = None
    ignore_eos: Annotated[Any, _only("the model's end token ends an answer", False)] = None
    stop_token_ids: Annotated[Any, _only("stop sequences are text: use stop", [])] = None
    include_stop_str_in_output: Annotated[
        Any, _only("an answer ends before its stop sequence", False)
    ] = None
    skip_special_tokens: Annotated[Any, _only("special tokens are no text", True)] = None
    spaces_between_special_tokens: Any = None

    def changes(self) -> dict[str, Any]:
        """Decoder settings that the request names; -1 is other servers' word for "none"."""
        shared = {
            "max_new_tokens": self.limit(),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k == -1 else self.top_k,
            "seed": None if self.seed == -1 else self.seed,
        }
        given = {name: value for name, value in shared.items() if value is not None}
        twice = sorted(given.keys() & self.settings.keys())
        if twice:
            raise Refused(400, f"{twice[0]} is given twice", "settings")
        return {**given, **self.settings}

    def limit(self) -> int | None:
        """The most tokens asked for."""
        return self.max_tokens


class ChatRequest(_Asked):
    """The body of ``/v1/chat/completions``."""

    source = "messages"
    messages: Chat
    max_completion_tokens: int | None = None
    tools: NoTools = None
    functions: NoTools = None
    tool_choice: NoChoice = None
    function_call: NoChoice = None
    logprobs: Annotated[Any, _only("no probabilities are told", False)] = None
    top_logprobs: Annotated[Any, _only("no probabilities are told", 0)] = None
    modalities: Annotated[Any, _only("answers are text", ["text"])] = None
    reasoning_effort: Annotated[Any, _only("no effort can be chosen", "none")] = None
    verbosity: Annotated[Any, _only("no verbosity can be chosen", "medium")] = None
    add_generation_prompt: Annotated[Any, _only("an answer follows the chat", True)] = None
    continue_final_message: Annotated[Any, _only("an answer follows the chat", False)] = None
    chat_template_kwargs: Annotated[Any, _only("the template has no options", {})] = None

    def limit(self) -> int | None:
        """The older and the newer name of one limit: of two values, the lower keeps to both."""
        given = [each for each in (self.max_tokens, self.max_completion_tokens) if each is not None]
        return min(given, default=None)

    def chat(self) -> list[Message]:
        return [message.plain() for message in self.messages]


class CompletionRequest(_Asked):
    """The body of ``/v1/completions``: a prompt as it is, in text or in token ids."""

    source = "prompt"
    # More than OpenAI's four, as evaluation programs send them here uncut.
    stop: Annotated[Stops, _up_to(16)] = []
    prompt: Annotated[
        Annotated[Text, Tag(TEXT)] | Annotated[Ids, Tag(LIST)],
        Discriminator(_text_or_list),
        BeforeValidator(_one_prompt),
    ]
    logprobs: Annotated[
        Any, _only("no probabilities are told, so tasks that compare choices cannot be run")
    ] = None
    suffix: Annotated[Any, _only("answers follow their prompt", "")] = None
    add_special_tokens: Annotated[Any, _only("the tokenizer adds its own start", True)] = None


class EventsRequest(_Strict):
    """The body of ``/v1/events``: a chat, and settings of ``decoder`` (None: the service's).

    ``hold`` has pairs of place in the answer and token id, ``infill`` the answer with gaps; one of
    them at most. ``inspect`` asks for guesses and candidates.
    """

    messages: Chat
    decoder: str | None = None
    config: dict[str, Any] = {}
    hold: Annotated[list[Pair], Field(max_length=MAX_TEXT)] = []
    infill: Text | None = None
    inspect: bool = False

    def chat(self) -> list[Message]:
        return [message.plain() for message in self.messages]


def parse(kind: type[_Strict], body: bytes) -> Any:
    """A request of this kind, or ``Refused`` naming the field at fault."""
    try:
        return kind.model_validate_json(body.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part not in (TEXT, LIST))
        unknown = first["type"] == "extra_forbidden"
        told = first["msg"].removeprefix("Value error, ")
        told = "there is no such field; leave it out" if unknown else told
        raise Refused(400, f"{where}: {told}" if where else told, where) from error


def configured(default: DecodeConfig, changes: dict[str, Any], limit: int) -> DecodeConfig:
    """The default with changes, whose cost is bounded; ``Refused`` for what cannot be."""
    for name, value in changes.items():
        most = MAX_SEED if name == "seed" else MAX_INTEGER
        if isinstance(value, (int, float)) and value > most:
            raise Refused(400, f"{name} must be at most {most}, got {value}", name)
    config = config_from_dict(decoder_name(default), config_to_dict(default) | changes)
    if config.max_new_tokens > limit:
        message = f"at most {limit} tokens may be asked for, got {config.max_new_tokens}"
        raise Refused(400, message, "max_tokens")
    return config
