"""What every test stands on: a quiet OpenMP, one thread, and one small real tokenizer."""

import os

# Read when torch loads its OpenMP; spinning threads slow a busy machine down many times over.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# A test's tokens and threads are not to depend on how fast the machine is.
os.environ["D2F_CALIBRATE"] = "0"

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from d2f.tasks import TASKS
from d2f.tokenizer import Tokenizer
from d2f.train.vocabulary import corpus, train_tokenizer

torch.set_num_threads(1)
# Derandomised: the same examples in every run, so that no test fails or passes by luck.
settings.register_profile(
    "d2f", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("d2f")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer's files as the embedded models have them, trained on a few problems."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, corpus(3, 0, TASKS), 1536)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer(tokenizer_folder)
