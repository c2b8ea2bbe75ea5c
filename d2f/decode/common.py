"""What all decoders share: input checks, the clock, the trace header."""

import math
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

import torch
import transformers
from torch import Tensor

from d2f.config import DecodeConfig, decoder_name
from d2f.decode.held import held_tokens
from d2f.errors import ComputeError, InvalidInput, shown
from d2f.events import TraceHeader
from d2f.model import Model
from d2f.nn.attention import backend_name
from d2f.policy import kind_of

MAX_SEED = 2**64  # as many as torch's generators tell apart


def token_ids(values: object) -> list[int]:
    """Ids as plain ints: of a list, a tuple, or a tensor or array of one dimension.

    Raises:
        InvalidInput: they are something else.
    """
    rows = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes, bytearray)):
        raise InvalidInput(f"prompt_ids must be a list of ints, got a {type(values).__name__}")
    for place, value in enumerate(rows):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InvalidInput(
                f"prompt_ids must be a list of ints, got {shown(value, 60)} at {place}"
            )
    return [int(value) for value in rows]


def check_prompt(model: Model, prompt_ids: Sequence[int], config: DecodeConfig) -> None:
    """Refuse what cannot be decoded, before anything runs."""
    if not prompt_ids:
        raise InvalidInput("prompt_ids must not be empty")
    known = min(model.tokenizer.vocab_size, model.config.vocab_size)
    beyond = [i for i in prompt_ids if not 0 <= i < known]
    if beyond:
        raise InvalidInput(f"prompt_ids must be token ids of the model, got {shown(beyond[0])}")
    if model.config.mask_id is not None and model.config.mask_id in prompt_ids:
        raise InvalidInput("prompt_ids must not contain the mask token")
    if config.seed >= MAX_SEED:
        raise InvalidInput(f"seed must be below 2**64, got {shown(config.seed)}")
    total, limit = len(prompt_ids) + config.max_new_tokens, model.config.max_length
    if total > limit:
        raise InvalidInput(
            f"the prompt's {len(prompt_ids)} tokens and max_new_tokens={config.max_new_tokens} "
            f"exceed the model's context of {limit} tokens"
        )


def now(device: torch.device) -> float:
    """Seconds, once all work that this thread queued on the device is done."""
    if device.type == "cuda":
        # Not the whole device: another thread may be capturing a graph, which forbids it.
        torch.cuda.current_stream(device).synchronize()
    return time.perf_counter()


def new_generator(model: Model, seed: int) -> torch.Generator:
    """The run's only source of randomness, on the model's device."""
    return torch.Generator(model.device).manual_seed(seed)


def trace_header(
    model: Model,
    prompt_ids: Sequence[int],
    config: DecodeConfig,
    hold: Mapping[int, int] | None = None,
) -> TraceHeader:
    """The header of a run that is about to start."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return TraceHeader(
        config=config,
        model=model.name,
        device=f"{device.type} ({name})",
        dtype=model.dtype,
        prompt_ids=tuple(token_ids(prompt_ids)),
        stop_ids=model.tokenizer.stop_ids,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **how_it_runs(model, config),
        },
        held=held_tokens(model, config, hold),
    )


def how_it_runs(model: Model, config: DecodeConfig) -> dict[str, str]:
    """What the speed depends on beyond device and dtype, for every report.

    Decoders without a cache run eagerly whatever the model is.
    """
    fixed = model.fixed if kind_of(decoder_name(config)).units is not None else None
    told = {
        "attention": backend_name(model.net.attention),
        "forward": fixed.kind if fixed else "eager",
        "weights": model.net.quantized or model.dtype,
    }
    if model.device.type == "cpu":
        threads = model.threads or torch.get_num_threads()
        told |= {"packing": model.net.packing, "threads": str(threads)}
    if model.tuned is not None:
        told["timed"] = model.tuned.reason
    return told


def read(*columns: Tensor) -> list[list[float]]:
    """(N,) columns as rows on the host: a step's only synchronisation."""
    # Token ids are exact in float64.
    return torch.stack([column.double() for column in columns], dim=1).tolist()


def check_finite(confidences: Iterable[float], dtype: str) -> None:
    """Refuse the choices of a step whose logits were not finite: they are no answer.

    Raises:
        ComputeError: a confidence is not finite.
    """
    if all(map(math.isfinite, confidences)):
        return
    wider = {"float16": "bfloat16 or float32", "bfloat16": "float32"}.get(dtype)
    retry = f"load it with --dtype {wider}; if that does not help, " if wider else ""
    raise ComputeError(
        f"the model computed NaN or infinity in {dtype}, so the answer ends here: {retry}"
        "a weight is damaged, so download the model again"
    )
