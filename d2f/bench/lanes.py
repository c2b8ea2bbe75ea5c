"""The lanes of a measurement as a command line names them, before any model is loaded.

Knows no model: what is wrong with a decoder, a setting or a sweep shows at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from d2f.cli.options import apply_settings
from d2f.config import CONFIGS, DecodeConfig
from d2f.errors import InvalidInput

# Model and settings by decoder, as d2f.catalogue.pairs.Pair.lanes has them.
Known = Mapping[str, tuple[str, DecodeConfig]]


@dataclass(frozen=True)
class Entry:
    """A decoder with its settings, and the name or folder of the model it runs."""

    decoder: str
    model: str
    config: DecodeConfig


def entries(
    known: Known,
    decoders: Sequence[str],
    models: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> list[Entry]:
    """An entry for each decoder, with what ``--model`` and ``--set`` change.

    Args:
        models: texts ``DECODER=MODEL``.
        settings: texts ``DECODER.SETTING=VALUE``.

    Raises:
        InvalidInput: a decoder that is not in the run, or a value that a setting cannot have.
    """
    others = dict(overrides("--model", models))
    changes: dict[str, dict[str, str]] = {}
    for target, value in overrides("--set", settings):
        decoder, _, name = target.partition(".")
        changes.setdefault(decoder, {})[name] = value
    for decoder in [*decoders, *others, *changes]:
        if decoder not in known or decoder not in decoders:
            raise _absent(decoder, decoders)
    return [
        Entry(
            decoder=decoder,
            model=others.get(decoder, known[decoder][0]),
            config=apply_settings(known[decoder][1], changes.get(decoder, {})),
        )
        for decoder in dict.fromkeys(decoders)
    ]


def swept(base: Sequence[Entry], sweeps: Sequence[str]) -> Iterator[Entry]:
    """The entries that ``--sweep DECODER.SETTING=V1,V2`` adds: one a value that is another."""
    for target, values in overrides("--sweep", sweeps):
        decoder, _, setting = target.partition(".")
        own = [entry for entry in base if entry.decoder == decoder]
        if not own:
            raise _absent(decoder, [entry.decoder for entry in base])
        for value in values.split(","):
            for entry in own:
                config = apply_settings(entry.config, {setting: value})
                if config != entry.config:
                    yield replace(entry, config=config)


def overrides(option: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``["d2f.tau_conf=0.85"]`` to pairs ``("d2f.tau_conf", "0.85")``."""
    for text in texts:
        target, equals, value = text.partition("=")
        if not equals or target.partition(".")[0] not in CONFIGS:
            decoders = ", ".join(CONFIGS)
            raise InvalidInput(f"{option} must begin with one of {decoders}, got {text!r}")
        yield target, value


def _absent(decoder: str, decoders: Sequence[str]) -> InvalidInput:
    there = ", ".join(dict.fromkeys(decoders))
    return InvalidInput(f"decoder {decoder!r} is not in this run of {there}")
