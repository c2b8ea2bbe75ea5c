"""The decoder-only transformer: one architecture, five switches.

Pre-norm layers of grouped-query attention with rotary positions and a SwiGLU feed-forward cover
LLaDA, Dream / Qwen2, Qwen3 and Llama 3: q/k/v bias, a norm of each query and key head, rotary
embedding in float32 or in the model dtype, tied head, logit shift. Knows nothing of decoding, of
files or of text. *Block* is kept for diffusion blocks; a transformer layer is a
:class:`DecoderLayer`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2f.errors import InvalidInput
from d2f.nn.attention import Sight, any_shape, attend, make_fixed_sight, make_sight
from d2f.nn.cache import FixedRows, KVCache
from d2f.shape import Llama3Rope, ModelConfig, YarnRope


class RMSNorm(nn.Module):
    """Computed in float32, cast back, then scaled: the order of the reference models."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * normed(x, self.eps)


class HeadNorm(nn.Module):
    """RMSNorm of each query head by one weight and of each key head by another, before rotation.

    ``weight`` (2 * head_dim,): that of the queries, then that of the keys.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.weight = nn.Parameter(torch.ones(2 * config.head_dim))
        self.eps = config.norm_eps

    def forward(self, qk: Tensor) -> Tensor:
        """(B, T, heads + kv_heads, D), normed over D."""
        q, k = self.weight.chunk(2)
        weight = torch.cat((q.expand(self.heads, -1), k.expand(self.kv_heads, -1)))
        return weight * normed(qk, self.eps)


def normed(x: Tensor, eps: float) -> Tensor:
    """Divided by its root mean square over the last dimension, which float32 computes."""
    return F.rms_norm(x, x.shape[-1:], eps=eps)


def rotary_tables(config: ModelConfig, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """cos and sin, each (max_length, head_dim) in float32; halves repeated (GPT-NeoX order)."""
    exponent = torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
    positions = torch.arange(config.max_length, device=device).float()
    # Not theta ** -exponent: the reference models divide, and far positions show the difference.
    frequencies = 1.0 / config.rope_theta**exponent
    rope, scale = config.rope_scaling, 1.0
    if isinstance(rope, Llama3Rope):
        frequencies = stretched(frequencies, rope)
    elif rope is not None:
        frequencies, scale = yarned(frequencies, rope, config.rope_theta), rope.attention_factor
    angles = torch.outer(positions, frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * scale, angles.sin() * scale


def stretched(frequencies: Tensor, rope: Llama3Rope) -> Tensor:
    """Angles a position, scaled as Llama 3.1 does; see :class:`d2f.shape.Llama3Rope`."""
    waves = rope.original_length * frequencies / (2 * math.pi)  # in the original context
    kept = (waves - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return torch.lerp(frequencies / rope.factor, frequencies, kept.clamp(0, 1))


def yarned(frequencies: Tensor, rope: YarnRope, theta: float) -> Tensor:
    """Angles a position, scaled as YaRN does; see :class:`d2f.shape.YarnRope`."""
    pairs = len(frequencies)

    def place(turns: float) -> float:
        """Which pair turns so many times in the original context."""
        return pairs * math.log(rope.original_length / (turns * 2 * math.pi)) / math.log(theta)

    first = max(math.floor(place(rope.beta_fast)), 0)
    last = min(math.ceil(place(rope.beta_slow)), 2 * pairs - 1)
    where = torch.arange(pairs, device=frequencies.device).float()
    # One pair alone would be no range.
    kept = 1 - ((where - first) / (last - first or 0.001)).clamp(0, 1)
    # In the reference's order: far positions show the last bit.
    long = 1.0 / (rope.factor * (1.0 / frequencies))
    return long * (1 - kept) + frequencies * kept


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``x`` (B, T, heads, D) with tables (T, 1, D); keeps x's dtype.

    A pair of halves (a, b) becomes (a cos - b sin, b cos + a sin); the sign is in the table.
    """
    return (x * cos + x.roll(x.shape[-1] // 2, -1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Self-attention with q, k and v computed by one product."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        rows = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, rows, bias=config.qkv_bias)
        self.qk_norm = HeadNorm(config) if config.qk_norm else nn.Identity()
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        sight: Sight,
        cache: KVCache | FixedRows | None,
        start: int,
        wanted: Tensor | None = None,
    ) -> Tensor:
        batch, rows, _ = x.shape
        qkv = self.qkv_proj(x).view(batch, rows, -1, self.head_dim)
        qk, v = qkv.split_with_sizes((self.heads + self.kv_heads, self.kv_heads), dim=2)
        qk = rotate(self.qk_norm(qk), *rotary)
        q, k = qk.split_with_sizes((self.heads, self.kv_heads), dim=2)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            k, v = cache.write(self.layer, start, k, v)
        out: Tensor = self.o_proj(chosen(attend(q, k, v, sight), wanted))
        return out


class FeedForward(nn.Module):
    """SwiGLU with gate and up computed by one product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class DecoderLayer(nn.Module):
    """Attention, then feed-forward, each normed before and added to what came in."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        sight: Sight,
        cache: KVCache | FixedRows | None,
        start: int,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(B, T, hidden_size), of the ``wanted`` rows alone; keys and values are of all."""
        mixed = self.self_attn(self.input_layernorm(x), rotary, sight, cache, start, wanted)
        x = chosen(x, wanted) + mixed
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


def chosen(x: Tensor, rows: Tensor | None) -> Tensor:
    """These rows of (B, T, ...); None: all."""
    return x if rows is None else x.index_select(1, rows)


class Transformer(nn.Module):
    """Token ids to hidden states; :meth:`logits` applies the head where it is wanted.

    ``attention`` names the backend, one of :data:`d2f.nn.attention.BACKENDS`; ``quantized`` the
    kind of weights the layers hold, None for their own dtype (see :mod:`d2f.nn.quantize`);
    ``packing`` how they lie in memory (see :mod:`d2f.nn.packing`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = "sdpa"
        self.quantized: str | None = None
        self.packing = "rows"
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tied_head:
            self.lm_head.weight = self.embed_tokens.weight
        # Not buffers: a dtype cast of the module must never reach the angles.
        self._tables: tuple[Tensor, Tensor] | None = None

    def rotary(self, start: int, end: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and signed sin, see :func:`rotate`, of positions ``start .. end - 1``, (T, 1, D)."""
        dtype = torch.float32 if self.config.rope_in_float32 else dtype
        cos, sin = self.tables()
        return cos[start:end, None].to(dtype), sin[start:end, None].to(dtype)

    def rotary_at(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and signed sin of (T,) positions, (T, 1, D)."""
        dtype = torch.float32 if self.config.rope_in_float32 else dtype
        cos, sin = self.tables()
        return cos[positions, None].to(dtype), sin[positions, None].to(dtype)

    def tables(self) -> tuple[Tensor, Tensor]:
        """cos and signed sin of every position in float32, on the weights' device; made once."""
        device = self.embed_tokens.weight.device
        if self._tables is None or self._tables[0].device != device:
            # The tables outlive the inference mode they may first be asked for in.
            with torch.inference_mode(False):
                cos, sin = rotary_tables(self.config, device)
                half = self.config.head_dim // 2
                self._tables = cos, torch.cat((-sin[:, :half], sin[:, half:]), dim=1)
        return self._tables

    def forward(
        self,
        ids: Tensor,
        visible_end: Tensor | None,
        cache: KVCache | None = None,
        start: int = 0,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states of a window, normed.

        Args:
            ids: (B, T) token ids at positions ``start .. start + T - 1``.
            visible_end: (T,) or (B, T), see :mod:`d2f.nn.attention`; None: every row sees all keys.
                May lie on the host.
            cache: holds rows ``0 .. start - 1``; the window's K/V are written at ``start``.
            wanted: (N,) rows of the window whose states are of use; None: all.

        Returns:
            (B, T, hidden_size), or (B, N, hidden_size) of the wanted rows.
        """
        rows = ids.shape[1]
        if start + rows > self.config.max_length:
            raise InvalidInput(
                f"position {start + rows} is beyond the context of {self.config.max_length} tokens"
            )
        if cache is not None:
            cache.check_window(start, rows)
        groups = self.config.num_heads // self.config.num_kv_heads
        window = (ids.shape[0], rows)
        x = self.embed_tokens(ids)
        sight = make_sight(
            self.attention, visible_end, window, start + rows, groups, x.device, x.dtype
        )
        rotary = self.rotary(start, start + rows, x.dtype)
        last = len(self.layers) - 1
        with any_shape(ids.device):
            for index, layer in enumerate(self.layers):
                x = layer(x, rotary, sight, cache, start, wanted if index == last else None)
        out: Tensor = self.norm(x)
        return out

    def fixed(self, ids: Tensor, visible_end: Tensor, cache: FixedRows, size: int) -> Tensor:
        """:meth:`forward` at a fixed shape: where the window stands, only the device knows.

        Nothing is checked: that takes the host.

        Args:
            ids: (1, T) token ids at ``cache.positions``, T a multiple of ``size``.
            visible_end: (T,), one value a block of ``size`` rows.

        Returns:
            (1, T, hidden_size).
        """
        groups = self.config.num_heads // self.config.num_kv_heads
        x = self.embed_tokens(ids)
        sight = make_fixed_sight(self.attention, visible_end, size, cache.extent, groups, x.dtype)
        # Padding may stand beyond the last position there is.
        positions = cache.positions.clamp(max=self.config.max_length - 1)
        rotary = self.rotary_at(positions, x.dtype)
        for layer in self.layers:
            x = layer(x, rotary, sight, cache, 0)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., hidden_size) to (..., vocab_size)."""
        out: Tensor = self.lm_head(hidden)
        return out

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for this model, on its device and in its dtype."""
        weight = self.embed_tokens.weight
        config = self.config
        return KVCache(
            config.num_layers,
            config.num_kv_heads,
            config.head_dim,
            capacity,
            weight.device,
            weight.dtype,
        )
