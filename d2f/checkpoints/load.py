"""A model from a name: resolve it to folders, plan it, fill it.

A folder holds ``config.json``, safetensors shards and the tokenizer's files, in the words and key
names of Llama, Qwen, LLaDA or Dream. Everything that can be refused is refused by the plan, from
the headers of its files: only then is memory taken, and each weight is read by itself, straight
into its place. PEFT's LoRA adapters are merged in float32 on the way. Every key must be used and
every parameter filled. No code of a checkpoint is run.
"""

from pathlib import Path

import torch

from d2f.checkpoints.plan import DTYPES, Plan, check_fit, folder_tokenizer, make_plan
from d2f.checkpoints.resolve import known_shape, published_model, resolve
from d2f.checkpoints.shards import open_shard
from d2f.model import Model
from d2f.nn.packing import pack
from d2f.nn.quantize import quantize as quantize_network
from d2f.nn.transformer import Transformer
from d2f.run_options import RunOptions
from d2f.shape import Diffusion, ModelConfig
from d2f.tokenizer import Tokenizer


def load_model(
    name: str | Path,
    *,
    adapter: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    attention: str = "auto",
    quantize: str | None = None,
    compile: bool = False,
    fuse: bool = False,
    packing: str | None = None,
    threads: int | None = None,
    revision: str | None = None,
    diffusion: Diffusion | None = None,
) -> Model:
    """Load a model of the catalogue by name, any model folder, or a repository of the hub by id.

    Args:
        name: a bare name of the catalogue is that model (a published one comes with its adapter,
            downloaded at need); ``./name`` and every ``Path`` is a folder. An id of the hub may
            end in ``@revision``.
        adapter: folder of a PEFT LoRA adapter, or its id on the hub, merged in float32 before the
            cast to ``dtype``.
        dtype: "float32", "bfloat16" or "float16".
        attention: "auto", or one of :data:`d2f.nn.attention.BACKENDS`.
        quantize: "int8" (needs torchao) or "int4" (needs bitsandbytes), for the layers' weights.
        compile: make the steps ahead: on CUDA captured as graphs, elsewhere compiled.
        fuse: compile what the graphs of CUDA hold, too.
        packing: how weights lie in memory, one of :data:`d2f.nn.packing.PACKINGS`; None: as is
            usual for device and dtype.
        threads: with how many torch computes each step of decoding; None: as many as it has.
        revision: of a repository of the hub; None: the catalogue's, else its branch ``main``,
            which may move.
        diffusion: how a diffusion model is decoded, where neither its files nor the catalogue say
            so: mask token, logit shift, grid of blocks.

    Raises:
        InvalidInput: unknown name, no such device, an attention or a packing that cannot be there.
        LoadError: unsupported architecture, a diffusion model of which it is not known how it
            decodes, something given that its files contradict, missing or left-over keys, an
            adapter for another base, a missing or damaged file, a quantisation that is not
            installed; HubError: it cannot be downloaded; TooLittleMemory.
    """
    options = RunOptions(
        device=str(device),
        dtype=dtype,
        attention=attention,
        quantize=quantize,
        compile=compile,
        fuse=fuse,
        packing=packing,
        threads=threads,
    )
    published = published_model(name)
    if published is not None:
        # Before hours of downloading.
        check_fit(published.name, known_shape(published), options)
    source = resolve(name, adapter, revision)
    return fill(make_plan(source, options, diffusion or Diffusion()), options)


def load_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer of :func:`load_model`'s model, without its weights; raises what that does."""
    return folder_tokenizer(resolve(name).folder)


def fill(plan: Plan, options: RunOptions) -> Model:
    """The planned model, its weights read."""
    # To be quantised it is loaded on the CPU, so that it never lies whole on a GPU.
    first = "cpu" if options.quantize else options.device
    net = empty_network(plan.config, torch.device(first), DTYPES[options.dtype])
    net.attention = plan.backend
    read_weights(net, plan)
    if options.quantize is not None:
        quantize_network(net, options.quantize, options.device)
    pack(net, plan.packing)
    model = Model(plan.name, net.eval(), plan.tokenizer, threads=options.threads)
    return model.compiled(options.fuse) if options.compile else model


def empty_network(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """A network whose weights are allocated once, where and as they will be used, and not set."""
    with torch.device("meta"):
        net = Transformer(config).to(dtype)
    if config.tied_head:
        # Allocated by itself, it would no longer be the embedding.
        net.lm_head.weight = None  # type: ignore[assignment]
    net.to_empty(device=device)
    if config.tied_head:
        net.lm_head.weight = net.embed_tokens.weight
    return net.requires_grad_(False)


def read_weights(net: Transformer, plan: Plan) -> None:
    """Read every weight into its rows of the network, one at a time and one shard after another."""
    state = net.state_dict()
    homes: dict[Path, list[str]] = {}
    for key, weight in plan.stored.items():
        homes.setdefault(weight.path, []).append(key)
    for path, keys in homes.items():
        with open_shard(path) as file:
            for key in keys:
                value = file.get_tensor(key)
                if plan.lora is not None and key in plan.lora:
                    value = value.float() + plan.lora.delta(key)
                slot = plan.slots[key]
                state[slot.key][slot.rows].copy_(value)
