"""What bfloat16 changes in the embedded models' choices."""

from itertools import islice

import pytest
import torch
from sight import block_causal_ends, causal_ends, full_ends
from torch import Tensor

from d2f import Model, load_model
from d2f.catalogue.pairs import PAIRS
from d2f.tasks import TASKS, draw

PROBLEMS, BLOCK = 4, 16


def choices(model: Model) -> Tensor:
    """The likeliest token at every answer position of held-out problems.

    Diffusion models see every other token of the answer masked, autoregressive ones the past.
    """
    found = []
    for task in TASKS:
        for problem in islice(draw(task, "test", seed=3), PROBLEMS):
            prompt = model.tokenizer.encode_chat([{"role": "user", "content": problem.prompt}])
            answer = [*model.tokenizer.encode(problem.answer), model.tokenizer.end_id]
            positions = torch.arange(len(prompt), len(prompt) + len(answer))
            ids = torch.tensor([prompt + answer])
            if model.config.mask_id is not None:
                positions = positions[::2]
                ids[0, positions] = model.config.mask_id
            with torch.inference_mode():
                hidden = model.net(ids, ends(model, len(prompt), ids.shape[1]))[0]
                rows = positions - int(model.config.logit_shift)
                found.append(model.net.logits(hidden[rows]).float().argmax(-1))
    return torch.cat(found)


def ends(model: Model, prompt: int, total: int) -> Tensor:
    if model.config.causal:
        return causal_ends(total)
    if model.name == PAIRS["mini"].d2f:
        return block_causal_ends(0, total, prompt, BLOCK, total)
    return full_ends(total)


@pytest.mark.parametrize("name", [name for name, _ in PAIRS["mini"].lanes.values()])
def test_bfloat16_chooses_as_float32_does(name: str) -> None:
    exact, rough = (choices(load_model(name, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert len(exact) > 300
    assert (exact == rough).float().mean() > 0.99
