"""Where training starts: a tokenizer, and a network at its first weights.

From a model with a smaller vocabulary all that it knows is kept: a new token begins as the mean of
the old ones it is made of, in the embedding and in the head.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from d2f.catalogue.pairs import model_folder
from d2f.checkpoints.load import load_model, load_tokenizer
from d2f.model_files import read_json
from d2f.nn.transformer import Transformer
from d2f.train.recipes import DRILLS, MIXTURES, Recipe, model_shape
from d2f.train.vocabulary import (
    TOKENIZER_FILES,
    corpus,
    grow_tokenizer,
    old_pieces,
    train_tokenizer,
)

PROBLEMS_PER_TASK = 6000
TABLES = ("embed_tokens.weight", "lm_head.weight")


def give_tokenizer(folder: Path, recipe: Recipe) -> None:
    """The tokenizer of the model that training starts from, grown if need be, or a new one."""
    tasks = [name for name in MIXTURES[recipe.mixture] if name != DRILLS]
    if recipe.init is None:
        train_tokenizer(folder, corpus(PROBLEMS_PER_TASK, 0, tasks), recipe.vocab_size)
        return
    source = model_folder(recipe.init)
    if read_json(source / "config.json")["vocab_size"] < recipe.vocab_size:
        grow_tokenizer(source, folder, corpus(PROBLEMS_PER_TASK, 0, tasks), recipe.vocab_size)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, folder / name)


def initialise(net: Transformer) -> None:
    """Normal(0, 0.02), the products that feed the residual stream scaled down with depth."""
    for name, parameter in net.named_parameters():
        if parameter.dim() == 2:
            feeds_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            scale = (2 * net.config.num_layers) ** -0.5 if feeds_residual else 1.0
            nn.init.normal_(parameter, std=0.02 * scale)


def build(recipe: Recipe, mask_id: int, folder: Path) -> Transformer:
    """The network at its starting weights; ``folder`` holds the tokenizer it is to learn with."""
    torch.manual_seed(recipe.seed)
    net = Transformer(model_shape(recipe, mask_id))
    initialise(net)
    if recipe.init is not None:
        state = load_model(recipe.init).net.state_dict()
        known = load_tokenizer(recipe.init).vocab_size
        pieces = old_pieces(read_json(folder / "tokenizer.json"), known)
        net.load_state_dict({name: _grown(net, name, state[name], pieces) for name in state})
    return net.train()


def _grown(net: Transformer, name: str, weight: Tensor, pieces: dict[int, list[int]]) -> Tensor:
    """A weight as it is, or a table with rows for new tokens."""
    if name not in TABLES:
        return weight
    rows: Tensor = net.state_dict()[name].clone()
    rows[: len(weight)] = weight
    for token, old in pieces.items():
        rows[token] = weight[old].mean(0)
    return rows
