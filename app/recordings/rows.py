"""What a link holds: lists of values in a fixed order, as JSON.

A recording becomes one and is made of one in :mod:`.link`. Knows no runs.
"""

from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field, model_validator

from d2f.config import (
    CONFIGS,
    MAX_TOKENS,
    DecodeConfig,
    config_from_dict,
    config_to_dict,
    settings_of,
)
from d2f.events import DECODER
from d2f.model_files import Fields

from .limits import MAX_PROMPT_TOKENS, ONE_OR_TWO, check_settings, few, known_format
from .recording import Past
from .refusals import require

FORMAT = 3
HERE: list[Any] = [DECODER, None, True, [], [], []]  # how most lanes end, which a link leaves out
DAY = 86_400_000_000  # microseconds

Count = Annotated[int, Field(ge=0)]
LONG = "a column is too long"


class Row(Fields):
    """Fields that a list holds in this order; the last ones may be left out."""

    @model_validator(mode="before")
    @classmethod
    def by_place(cls, values: Any) -> dict[str, Any]:
        listed = isinstance(values, list) and len(values) <= len(cls.model_fields)
        require(listed, "its parts are not those of a race")
        return dict(zip(cls.model_fields, values, strict=False))


class LaneLink(Row):
    """A lane: what ran where, and what came of it step by step.

    Attributes:
        settings: those of the decoder that differ from their defaults, by name.
        prompt: how many tokens it has.
        answer: None: the texts of its tokens, the stop left out.
        texts: of every token by position, held ones included.
        steps: each one's commits, ascending: of the positions that could be decided, how many lie
            between it and the one before.
        stops: which of all commits, counted from 0, are stop tokens.
        confidences: in hundredths, of all commits.
        tick: microseconds, which the ``times`` of the steps are told in.
        held: places of held tokens, and 1 for a stop token, else 0.
        forced: which of all commits were forced, where the confidences do not tell.
        drafted: how many tokens each step checked; none: no step did.
    """

    name: Any
    decoder: str
    settings: dict[str, Any]
    model: Any
    device: Any
    dtype: Any
    versions: Any
    prompt: Annotated[int, Field(ge=1, le=MAX_PROMPT_TOKENS)]
    answer: Any
    texts: Annotated[list[Any], few(MAX_TOKENS, LONG)]
    steps: Annotated[list[list[Count]], few(MAX_TOKENS, LONG)]
    stops: Annotated[list[Count], few(MAX_TOKENS, LONG)]
    confidences: Annotated[list[Annotated[int, Field(ge=0, le=100)]], few(MAX_TOKENS, LONG)]
    tick: Annotated[int, Field(ge=1, le=DAY)]
    times: Annotated[list[Annotated[int, Field(ge=0, le=DAY)]], few(MAX_TOKENS, LONG)]
    clock: Any = DECODER
    host: Any = None
    counted: Any = True
    held: Annotated[
        list[Annotated[tuple[Count, Count], Field(strict=False)]], few(MAX_TOKENS, LONG)
    ] = []
    forced: Annotated[list[Count], few(MAX_TOKENS, LONG)] = []
    drafted: Annotated[list[Count], few(MAX_TOKENS, LONG)] = []


class RaceLink(Row):
    """The JSON of a link; what it holds may still be anything."""

    format: Annotated[int, known_format(1, 2, FORMAT)]
    kind: Any
    prompt: Any
    verdict: Any
    lanes: Annotated[list[LaneLink], ONE_OR_TWO]
    past: Past = []


def link_settings(config: DecodeConfig) -> dict[str, Any]:
    """The settings that differ from their defaults, by name."""
    defaults = {field.name: field.default for field in fields(config)}
    values = config_to_dict(config)
    return {name: value for name, value in values.items() if value != defaults[name]}


def read_settings(decoder: str, settings: dict[str, Any]) -> DecodeConfig:
    """Inverse of :func:`link_settings`, of which nothing is believed."""
    require(decoder in CONFIGS, "its decoder is unknown")
    known = settings.keys() <= settings_of(CONFIGS[decoder]).keys()
    require(known, "its settings are not those of its decoder")
    return check_settings(config_from_dict(decoder, settings))
