"""Accuracy of a trained model on held-out problems, and the card that ships in its folder.

The card is a model folder's ``README.md``: what it is, how it was trained (read from the run's own
checkpoint and log) and what it scores, with the command that repeats it.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import json
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

from d2f.bench.machine import machine, versions
from d2f.checkpoint import Model, load_model
from d2f.config import DecodeConfig, VanillaConfig, config_to_dict
from d2f.decode import generate
from d2f.events import Trace
from d2f.registry import EMBEDDED, default_config
from d2f.tasks import TASKS, draw
from d2f.train.recipes import RECIPES, Recipe

SEED = 7


@dataclass(frozen=True)
class Score:
    """Accuracy over ``problems`` held-out problems of a task, and what decoding them took."""

    task: str
    problems: int
    accuracy: float
    tokens_per_forward: float


def evaluate(model: Model, task: str, config: DecodeConfig, problems: int, seed: int) -> Score:
    """Greedy accuracy on the first turns of the first ``problems`` of a held-out stream."""
    correct, traces = 0, list[Trace]()
    for problem in islice(draw(task, "test", seed), problems):
        prompt = model.tokenizer.encode_chat([{"role": "user", "content": problem.prompt}])
        traces.append(generate(model, prompt, config))
        correct += TASKS[task].score(problem, traces[-1].text)
    tokens, forwards = sum(t.tokens for t in traces), sum(t.forwards for t in traces)
    return Score(task, problems, correct / problems, tokens / forwards)
