"""transformers' own ``generate`` as an AR lane: what many people run, beside this engine's AR.

``generate`` keeps its loop to itself, so it runs in a thread that hands over each token through
its streamer and then waits for leave to go on: the same events, and a clock that runs from resume
to token, as in the engine's decoders. Knows nothing of lanes or races.
"""

import platform
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.generation import BaseStreamer

from d2f.catalogue.pairs import model_folder, model_name
from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.hub import snapshot
from d2f.checkpoints.plan import DTYPES
from d2f.config import ARConfig
from d2f.decode.common import check_finite, now
from d2f.errors import InvalidInput
from d2f.events import Commit, StepEvent, TraceHeader
from d2f.policy import OneByOne
from d2f.tokenizer import Tokenizer

LABEL = "transformers generate"
WARM_UP_TOKENS = 32


@dataclass(frozen=True, eq=False)
class Reference:
    """A model of transformers' own class with its tokenizer."""

    name: str
    net: Any  # a PreTrainedModel that can generate: no one class of transformers says both
    tokenizer: Tokenizer

    @property
    def max_length(self) -> int:
        return self.net.config.max_position_embeddings

    def header(self, prompt_ids: Sequence[int], config: ARConfig) -> TraceHeader:
        """The header of a run that is about to start."""
        device = self.net.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return TraceHeader(
            config=config,
            model=f"{self.name}, {LABEL}",
            device=f"{device.type} ({name})",
            dtype=dtype_name(self.net),
            prompt_ids=tuple(prompt_ids),
            stop_ids=self.tokenizer.stop_ids,
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )


def dtype_name(net: PreTrainedModel) -> str:
    """As reports name it."""
    return str(net.dtype).removeprefix("torch.")


@lru_cache(maxsize=1)
def warm_reference(name: str, device: str, dtype: str) -> Reference:
    """A loaded model after a short run. What keeps it from loading raises ``ValueError``."""
    known = PUBLISHED.get(name)
    folder = snapshot(known.repo.id, known.repo.revision) if known else model_folder(name)
    try:
        net: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=DTYPES[dtype], local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"transformers cannot load {name!r}: {error}") from error
    net.generation_config = GenerationConfig()  # the checkpoint's own would add rules of its own
    stops = net.config.eos_token_id
    stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
    reference = Reference(model_name(name), net.to(device).eval(), Tokenizer(folder, stops))
    hello = reference.tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    for _ in generate_steps(reference, hello, ARConfig(max_new_tokens=WARM_UP_TOKENS)):
        pass
    return reference


def generate_steps(
    reference: Reference, prompt_ids: Sequence[int], config: ARConfig
) -> Generator[StepEvent, None, None]:
    """One event a token; the first one's time holds the prefill.

    Raises:
        ValueError: prompt and answer do not fit the model's context, or tokens are to be drafted.
    """
    if config.prompt_lookup:
        raise InvalidInput(f"{LABEL} has no prompt lookup here: set prompt_lookup to 0")
    if len(prompt_ids) + config.max_new_tokens > reference.max_length:
        raise InvalidInput(
            f"the prompt's {len(prompt_ids)} tokens and max_new_tokens={config.max_new_tokens} "
            f"exceed the model's context of {reference.max_length} tokens"
        )
    return _steps(reference, list(prompt_ids), config)


class _Stopped(Exception):
    """Nobody waits for the rest."""


@dataclass(frozen=True)
class _Token:
    token_id: int
    confidence: float
    time: float


class _KeepLogits(LogitsProcessor):
    """Remembers the model's own logits, before temperature, and changes no number.

    What is no number becomes one: a GPU whose sampling meets NaN is lost to the whole process.
    """

    logits: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.logits = scores
        return scores.nan_to_num()


class _Handover(BaseStreamer):
    """Gives each token away and waits for leave to go on. The prompt comes first and is skipped."""

    def __init__(self, net: PreTrainedModel, kept: _KeepLogits) -> None:
        self.items: SimpleQueue[_Token | Exception] = SimpleQueue()
        self.leave: SimpleQueue[bool] = SimpleQueue()
        self._device, self._dtype = net.device, dtype_name(net)
        self._kept = kept
        self._prompt = True

    def put(self, value: Tensor) -> None:
        if self._prompt:
            self._prompt = False
            return
        time, token = now(self._device), int(value)
        # After the clock was read: what follows is for the page, not part of generate's work.
        logits = self._kept.logits[0].float()
        confidence = float(logits.softmax(-1)[token])
        check_finite([confidence, float(logits.amin())], self._dtype)
        self.items.put(_Token(token, confidence, time))
        self.wait()

    def end(self) -> None:
        """Nothing follows the last token."""

    def wait(self) -> None:
        if not self.leave.get():
            raise _Stopped


def _steps(
    reference: Reference, prompt_ids: list[int], config: ARConfig
) -> Generator[StepEvent, None, None]:
    device, stop_ids = reference.net.device, reference.tokenizer.stop_ids
    kept = _KeepLogits()
    handover = _Handover(reference.net, kept)
    thread = Thread(target=_generate, args=(reference, prompt_ids, config, handover, kept))
    thread.start()
    policy = OneByOne(len(prompt_ids), config)
    try:
        for step in count():
            started = now(device)
            handover.leave.put(True)
            item = handover.items.get()
            if isinstance(item, Exception):
                raise item
            plan = policy.plan()
            policy.record(plan.wanted, plan.wanted if item.token_id in stop_ids else [])
            reason = policy.finish_reason
            commits = (Commit(plan.wanted[0], item.token_id, item.confidence),)
            seconds = item.time - started
            yield StepEvent(step, seconds, plan.window, commits, (), policy.cached, reason)
            if reason is not None:
                return
    finally:
        handover.leave.put(False)
        thread.join()


def _generate(
    reference: Reference,
    prompt_ids: list[int],
    config: ARConfig,
    handover: _Handover,
    kept: _KeepLogits,
) -> None:
    """Runs in a thread of its own, and only while the lane waits for a token."""
    stop_ids = list(reference.tokenizer.stop_ids)
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    settings = GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        eos_token_id=stop_ids,
        pad_token_id=stop_ids[0],
        do_sample=config.temperature > 0,
        **(sampling if config.temperature > 0 else {}),
    )
    try:
        handover.wait()
        torch.manual_seed(config.seed)  # generate takes no generator of its own
        ids = torch.tensor([prompt_ids], device=reference.net.device)
        reference.net.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            logits_processor=LogitsProcessorList([kept]),
            streamer=handover,
        )
    except _Stopped:
        return
    except Exception as error:
        handover.items.put(error)
