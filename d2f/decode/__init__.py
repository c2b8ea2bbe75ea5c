"""Decoders: a generator from a prompt to one event a forward, by any kind of decoding."""

from collections.abc import Iterator, Mapping, Sequence

from d2f.config import DecodeConfig, decoder_name
from d2f.decode.commit import all_wanted, best, confident
from d2f.decode.common import trace_header
from d2f.decode.lookup import look_up
from d2f.decode.loop import CommitRule, Draft, decode
from d2f.errors import LoadError
from d2f.events import StepEvent, Trace
from d2f.model import Model
from d2f.policy import kind_of

RULES: dict[str, CommitRule] = {
    "d2f": confident,
    "ar": all_wanted,
    "vanilla": best,
    "fast-dllm-prefix": best,
    "fast-dllm-dual": best,
}

DRAFTS: dict[str, Draft] = {"ar": look_up}

__all__ = ["DRAFTS", "RULES", "generate", "prepare", "preparing", "stream", "trace_header"]


def stream(
    model: Model,
    prompt_ids: Sequence[int],
    config: DecodeConfig,
    *,
    hold: Mapping[int, int] | None = None,
    inspect: bool = False,
) -> Iterator[StepEvent]:
    """Decode lazily, one event a forward; the config's type names the decoder.

    Input is checked at once; nothing is computed before the first ``next``. ``close()`` cancels.

    Args:
        hold: tokens of the answer that are given, by place: 0 is its first. No stop token is
            decided before the last of them.
        inspect: tell the guesses for what stays undecided, and what else was likely for each
            decided token. Decides nothing otherwise, and costs some time.

    Raises:
        InvalidInput: the model is of another kind, or prompt or held tokens cannot be decoded.
    """
    decoder = decoder_name(config)
    rules = RULES[decoder], DRAFTS.get(decoder)
    return decode(model, prompt_ids, config, *rules, hold, inspect)


def preparing(model: Model, prompt_length: int, config: DecodeConfig) -> Iterator[tuple[int, int]]:
    """Make the programs that decoding a prompt up to this long may need, ahead of any clock.

    Nothing is made for an eager model, and nothing twice. Who stops asking keeps what is made.

    Yields:
        After each program, how many are made now, and of how many.

    Raises:
        LoadError: the machine cannot make them: it has no compiler, or too little memory.
    """
    units = kind_of(decoder_name(config)).units
    if model.fixed is None or units is None:
        return
    try:
        yield from model.fixed.preparing(prompt_length + config.max_new_tokens, *units(config))
    except RuntimeError as error:  # torch's compilers have dozens of kinds
        made = "compiled" if model.fixed.fused else "captured"
        raise LoadError(f"the steps cannot be {made}: {error}") from error


def prepare(model: Model, prompt_length: int, config: DecodeConfig) -> None:
    """All of :func:`preparing`: seconds for graphs, minutes for compiled programs."""
    for _ in preparing(model, prompt_length, config):
        pass


def generate(
    model: Model,
    prompt_ids: Sequence[int],
    config: DecodeConfig,
    *,
    hold: Mapping[int, int] | None = None,
    inspect: bool = False,
) -> Trace:
    """Decode to the end; ``token_ids``, ``text`` and every metric are properties of the Trace.

    Arguments and errors are those of :func:`stream`.
    """
    source = stream(model, prompt_ids, config, hold=hold, inspect=inspect)
    trace = Trace(trace_header(model, prompt_ids, config, hold), tuple(source))
    return trace.with_text(model.tokenizer.decode(trace.token_ids))
