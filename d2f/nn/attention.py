"""Attention under one rule: row i sees keys ``0 .. visible_end[i] - 1``.

Causal, full and block-causal visibility are all of this form, so one integer a row says it all and
no max_length^2 mask is ever built. Knows nothing of decoding policy or of caches.

Three backends compute it behind one function, :func:`attend`:

- "sdpa": torch's scaled_dot_product_attention under a mask. Runs everywhere.
- "flash": flash-attn's ``flash_attn_with_kvcache``. Rows with one visible end, a block, are a batch
  row with its own ``cache_seqlens``; ``cache_batch_idx`` lets all blocks read the same keys. Each
  block sees a prefix of them, both ways, so ``causal=False`` and no mask at all is block-causal.
- "flex": torch's flex_attention, a kernel compiled around the rule.

A visibility is prepared once a forward (:func:`make_sight`) and used by every layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from d2f.errors import InvalidInput

BACKENDS = ("sdpa", "flash", "flex")
# Where the kernels package finds flash-attn. Its versions 3 and 4 differ in the releases of torch
# they are built for; transformers asks for the same.
HUB_KERNEL = "kernels-community/flash-attn2"
# The least CUDA capability flash-attn is built for (Ampere), and its widest head.
FLASH_CAPABILITY, FLASH_HEAD_DIM = (8, 0), 256
FLEX_TILE = 128
# Torch's memory-efficient kernel takes a bias whose rows begin at multiples of so many numbers.
ALIGNED = 16
# Torch's own kernels that take any shape as it comes.
ANY_SHAPE = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class FlashPart:
    """Consecutive window rows as ``groups`` batch rows of ``size`` queries each.

    ``lengths`` (B * groups,): keys a batch row sees, all of it alike; with ``causal``, its last
    query sees that many and each one before it one fewer. ``source`` (B * groups,): the row of the
    keys' batch it reads. Both int32, on the device.
    """

    groups: int
    size: int
    lengths: Tensor
    source: Tensor
    causal: bool = False


@dataclass(frozen=True)
class FlashSight:
    """A visibility for flash-attn: the parts of a window, in the order of its rows."""

    parts: tuple[FlashPart, ...]


@dataclass(frozen=True)
class FlexSight:
    """A visibility for flex_attention: its BlockMask."""

    mask: Any


# None: every row sees every key. A tensor is a mask of visible_mask's, or a bias of that.
Sight = Tensor | FlashSight | FlexSight | None


def choose_backend(
    wanted: str, device: torch.device | str, dtype: torch.dtype, head_dim: int
) -> str:
    """The backend to attend with; "auto": flash where it is installed and fits, else sdpa.

    "auto" never downloads: the kernels package serves flash only where flash is asked for.

    Raises:
        ValueError: no such backend, or it cannot run here.
    """
    if wanted not in ("auto", *BACKENDS):
        raise InvalidInput(f"attention must be one of {('auto', *BACKENDS)}, got {wanted!r}")
    if wanted in ("sdpa", "flex"):
        return wanted
    obstacle = flash_obstacle(torch.device(device), dtype, head_dim)
    if wanted == "auto" and (obstacle or find_spec("flash_attn") is None):
        return "sdpa"
    if obstacle:
        raise InvalidInput(f"attention 'flash' {obstacle}")
    flash_kernel()
    return "flash"


def flash_obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """What keeps flash-attn from running there, or None."""
    if device.type != "cuda":
        return f"needs a CUDA GPU, got device {str(device)!r}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"needs float16 or bfloat16, got {str(dtype).removeprefix('torch.')}"
    if head_dim % 8 or head_dim > FLASH_HEAD_DIM:
        return f"needs heads of a multiple of 8 up to {FLASH_HEAD_DIM}, got {head_dim}"
    capability = torch.cuda.get_device_capability(device)
    if capability < FLASH_CAPABILITY:
        return f"needs CUDA capability 8.0 or more, got {'.'.join(map(str, capability))}"
    return None


def hub_kernel_version() -> int:
    """The version that is built for the torch at hand."""
    major, minor = torch.__version__.split(".")[:2]
    return 4 if (int(major), int(minor)) >= (2, 10) else 3


@lru_cache(maxsize=1)
def flash_kernel() -> Callable[..., Tensor]:
    """flash_attn_with_kvcache, from flash_attn or, downloaded once, from the kernels hub.

    Raises:
        ValueError: neither package is there, or it does not load.
    """
    try:
        if find_spec("flash_attn") is not None:
            from flash_attn import flash_attn_with_kvcache

            own: Callable[..., Tensor] = flash_attn_with_kvcache
            return own
        if find_spec("kernels") is not None:
            from kernels import get_kernel

            hub = get_kernel(HUB_KERNEL, version=hub_kernel_version())
            fetched: Callable[..., Tensor] = hub.flash_attn_with_kvcache
            return fetched
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"flash-attn does not load ({error}); use attention 'sdpa'") from error
    raise InvalidInput("attention 'flash' needs the flash_attn or the kernels package")


@lru_cache(maxsize=1)
def flex_kernel() -> Callable[..., Tensor]:
    """flex_attention, compiled: without that it would materialise every score."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def backend_name(backend: str) -> str:
    """A backend as reports name it, with the release of the kernel that is not torch's own."""
    if backend != "flash":
        return backend
    if find_spec("flash_attn") is not None:
        return f"flash (flash_attn {version('flash_attn')})"
    return f"flash ({HUB_KERNEL} version {hub_kernel_version()}, kernels {version('kernels')})"


def send(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; from the host to a GPU without waiting for the copy."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def visible_mask(visible_end: Tensor, num_keys: int, groups: int) -> Tensor:
    """Boolean mask of :func:`attend` for rows with these visible ends.

    Args:
        visible_end: (T,) or (B, T) integers >= 1.
        num_keys: S, the number of keys.
        groups: query heads per key/value head.

    Returns:
        (B or 1, 1, groups * T, S), True where the row may look.
    """
    if visible_end.dim() == 1:
        visible_end = visible_end[None]
    keys = torch.arange(num_keys, device=visible_end.device)
    mask = keys < visible_end[..., None]  # (B, T, S)
    return mask.repeat(1, groups, 1)[:, None]


def any_shape(device: torch.device) -> AbstractContextManager[None]:
    """Where forwards of ever new shapes run, sdpa is not cuDNN's.

    Torch 2.11 and later prefer cuDNN's on Hopper and Blackwell. It prepares itself for every number
    of keys anew, for tenths of a second, and in an eager run every step has a number of its own.
    """
    return sdpa_kernel(ANY_SHAPE) if device.type == "cuda" else nullcontext()


def make_sight(
    backend: str,
    visible_end: Tensor | None,
    window: tuple[int, int],
    num_keys: int,
    groups: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Sight:
    """What :func:`attend` needs of a visibility.

    Args:
        visible_end: as in :func:`visible_mask`, or None: every row sees every key. For flash one
            row of ends, (T,), and best on the host: its structure is read there.
        window: (B, T), the shape of the window's ids.
        groups: query heads per key/value head.
        device, dtype: those of the keys.
    """
    if visible_end is None:
        if backend == "sdpa":
            return None
        visible_end = torch.full((window[1],), num_keys)
    if backend == "flash":
        return _flash_sight(visible_end, window[0], device)
    visible_end = send(visible_end, device)
    if backend == "flex":
        return FlexSight(_block_mask(visible_end, num_keys))
    return bias(visible_mask(visible_end, num_keys, groups), dtype)


def bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as what sdpa adds to the scores, which it would else make in each layer.

    Rows lie in memory as far apart as kernels want them, or each layer would make a padded copy.
    """
    keys = mask.shape[-1]
    room = torch.zeros(
        (*mask.shape[:-1], -(-keys // ALIGNED) * ALIGNED), dtype=dtype, device=mask.device
    )
    return room[..., :keys].masked_fill_(~mask, -torch.inf)


def make_fixed_sight(
    backend: str,
    visible_end: Tensor,
    size: int,
    num_keys: int,
    groups: int,
    dtype: torch.dtype = torch.float32,
) -> Sight:
    """:func:`make_sight` from ends the device alone knows, for a window of blocks of ``size``."""
    if backend == "flash":
        lengths = visible_end[::size].int().contiguous()
        part = FlashPart(lengths.shape[0], size, lengths, torch.zeros_like(lengths))
        return FlashSight((part,))
    if backend == "flex":
        return FlexSight(_block_mask(visible_end, num_keys))
    return bias(visible_mask(visible_end, num_keys, groups), dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """Grouped-query attention; ``sight=None`` lets every row see every key.

    Args:
        q: (B, T, H, D). k, v: (B, K, S, D) with H a multiple of K.
        sight: from :func:`make_sight`; its kind says which backend computes.

    Returns:
        (B, T, H * D).
    """
    if isinstance(sight, FlashSight):
        return _attend_flash(q, k, v, sight)
    if isinstance(sight, FlexSight):
        return _attend_flex(q, k, v, sight)
    return _attend_sdpa(q, k, v, sight)


def _attend_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Query heads that share a key/value head are folded into the rows: nothing is repeated."""
    batch, rows, heads, dim = q.shape
    kv_heads = k.shape[1]
    groups = heads // kv_heads
    q = q.view(batch, rows, kv_heads, groups, dim).permute(0, 2, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        q.reshape(batch, kv_heads, groups * rows, dim), k, v, attn_mask=mask
    )
    out = out.view(batch, kv_heads, groups, rows, dim).permute(0, 3, 1, 2, 4)
    return out.reshape(batch, rows, heads * dim)


def equal_runs(ends: Sequence[int]) -> Iterator[tuple[int, list[int], bool]]:
    """Visible ends as runs of groups of one size: ``(size, end of each group, causal)``.

    A group is rows with the same end. Single rows whose ends count up by one are one causal group.
    """
    blocks = [(end, len(list(rows))) for end, rows in groupby(ends)]
    for size, run in groupby(blocks, key=lambda block: block[1]):
        own = [end for end, _ in run]
        if size == 1 and len(own) > 1 and own == list(range(own[0], own[0] + len(own))):
            yield len(own), own[-1:], True
        else:
            yield size, own, False


def _flash_sight(visible_end: Tensor, batch: int, device: torch.device) -> FlashSight:
    if visible_end.dim() != 1:
        raise InvalidInput(
            "attention 'flash' takes one row of visible ends for the whole batch, "
            f"got shape {tuple(visible_end.shape)}"
        )
    parts = []
    for size, ends, causal in equal_runs(visible_end.tolist()):
        lengths = torch.tensor(ends * batch, dtype=torch.int32)
        source = torch.arange(batch, dtype=torch.int32).repeat_interleave(len(ends))
        sent = send(lengths, device), send(source, device)
        parts.append(FlashPart(len(ends), size, *sent, causal))
    return FlashSight(tuple(parts))


def _attend_flash(q: Tensor, k: Tensor, v: Tensor, sight: FlashSight) -> Tensor:
    batch, rows, heads, dim = q.shape
    k, v = k.transpose(1, 2), v.transpose(1, 2)  # (B, S, K, D), views
    # Within torch.compile the kernel must be an operator; outside, that costs time a layer.
    kernel = flash_operator if torch.compiler.is_compiling() else _call_flash
    outputs, first = [], 0
    for part in sight.parts:
        length = part.groups * part.size
        queries = q[:, first : first + length].reshape(batch * part.groups, part.size, heads, dim)
        out = kernel(queries, k, v, part.lengths, part.source, part.causal)
        outputs.append(out.reshape(batch, length, heads * dim))
        first += length
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _call_flash(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, source: Tensor, causal: bool
) -> Tensor:
    return flash_kernel()(q, k, v, cache_seqlens=lengths, cache_batch_idx=source, causal=causal)


@torch.library.custom_op("d2f::flash", mutates_args=())
def flash_operator(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, source: Tensor, causal: bool
) -> Tensor:
    """flash-attn's kernel as an operator that torch.compile takes as it is."""
    return _call_flash(q, k, v, lengths, source, causal).contiguous()


@flash_operator.register_fake
def _flash_shape(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, source: Tensor, causal: bool
) -> Tensor:
    return q.new_empty(q.shape)


def _block_mask(visible_end: Tensor, num_keys: int) -> Any:
    """The BlockMask of visible ends (T,) or (B, T), made by device operations alone.

    No tile is called full: a full one would skip the rule, also in a later, shorter window.
    """
    from torch.nn.attention.flex_attention import BlockMask

    shared = visible_end.dim() == 1
    ends = visible_end[None] if shared else visible_end
    batch, rows = ends.shape
    tiles, key_tiles = -(-rows // FLEX_TILE), -(-num_keys // FLEX_TILE)
    padded = F.pad(ends, (0, tiles * FLEX_TILE - rows))
    furthest = padded.view(batch, 1, tiles, FLEX_TILE).amax(-1)
    counts = torch.div(furthest + FLEX_TILE - 1, FLEX_TILE, rounding_mode="floor").int()
    indices = torch.arange(key_tiles, dtype=torch.int32, device=ends.device)

    def visible(b: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return key < (visible_end[row] if shared else visible_end[b, row])

    return BlockMask.from_kv_blocks(
        counts,
        indices.expand(batch, 1, tiles, key_tiles).contiguous(),
        BLOCK_SIZE=FLEX_TILE,
        mask_mod=visible,
        seq_lengths=(rows, num_keys),
    )


def _attend_flex(q: Tensor, k: Tensor, v: Tensor, sight: FlexSight) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    batch, rows, heads, dim = q.shape
    # Within torch.compile it is compiled along with what calls it.
    here: Any = flex_attention
    kernel = here if torch.compiler.is_compiling() else flex_kernel()
    shared = k.shape[1] != heads
    out: Tensor = kernel(q.transpose(1, 2), k, v, block_mask=sight.mask, enable_gqa=shared)
    return out.transpose(1, 2).reshape(batch, rows, heads * dim)
