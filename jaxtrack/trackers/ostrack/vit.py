"""Vision transformer over template and search tokens together, with early candidate elimination.

Parameters carry the names of the published OSTrack checkpoints, which are those of timm and MAE. Read from
the end: `VisionTransformer` relates the tokens in `Block` after block; above them stand attention, the two
ways from pixels to tokens, and how parameters begin.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrack.models.layers import Conv, parameter, shared, torch_init
from jaxtrack.ops import precision
from jaxtrack.ops.mapping import by_platform
from jaxtrack.trackers.ostrack import elimination
from jaxtrack.trackers.ostrack.config import Config

EMBEDDING = nn.initializers.normal(0.02)  # timm cuts at +-2, a hundred deviations: a plain normal


def similarity_qkv(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
    """Draw a fused qkv kernel whose keys equal its queries: attention starts as likeness of content.

    Without pre-training a small model must first learn that like attends to like, which is most of what
    matching a template is; here it begins there.

    Reference:
        The idea is that of Trockman and Kolter, Mimetic Initialization of Self-Attention Layers, 2023.
    """
    key_query, key_value = jax.random.split(key)
    width = shape[0]
    query = jax.random.normal(key_query, (width, width), dtype) * width**-0.5
    value = jax.random.normal(key_value, (width, width), dtype) * width**-0.5
    return jnp.concatenate([query, query, value], axis=1)


def wave_positions(grid: int, width: int, segment: float) -> Any:
    """Return an initialiser of positions: sines, cosines, and a constant that tells template from search.

    Args:
        grid: side of the token grid; positions count from its centre, so that template and search
            tokens with the same offset from their centre begin alike.
        width: channels; a multiple of 4.
        segment: factor on a constant random direction, the same for every call.

    Returns:
        An initialiser of shape ``(1, grid * grid, width)``.
    """
    offset = np.arange(grid) - (grid - 1) / 2
    rates = np.pi / 2 * 16.0 ** -np.linspace(0, 1, width // 4)
    waves = np.concatenate(
        [np.sin(offset[:, None] * rates), np.cos(offset[:, None] * rates)], axis=1
    )
    rows = np.repeat(waves[:, None], grid, axis=1)
    columns = np.repeat(waves[None], grid, axis=0)
    table = np.concatenate([rows, columns], axis=-1).reshape(1, grid * grid, width)
    direction = np.random.RandomState(0).randn(width)
    table = 0.3 * (table + segment * direction)

    def draw(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        return jnp.asarray(table, dtype).reshape(shape)

    return draw


class ConvStem(nn.Module):
    """Tokens of an image by overlapping convolutions of stride 2 instead of one patch product.

    A few convolutions learn edges and textures within minutes, where a patch product needs long training
    (Xiao et al., Early Convolutions Help Transformers See Better, 2021).

    Each convolution (3x3) is followed by layer norm and GELU.

    Attributes:
        config: the tracker's settings.
    """

    config: Config

    @nn.compact
    def __call__(self, image: Float[Array, "b h w k"]) -> Float[Array, "b n c"]:
        """Turn ``(b, h, w, k)`` into ``(b, n, c)``, row-major."""
        config, dtype = self.config, self.config.dtype
        x = image.astype(dtype)
        for i, channels in enumerate(config.stem):
            x = Conv(channels, 3, strides=2, padding=1, name=f"stem.{i}.0")(x)
            norm = nn.LayerNorm(epsilon=config.layer_norm_epsilon, dtype=dtype, name=f"stem.{i}.1")
            x = nn.gelu(norm(x), approximate=False)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        project = nn.Dense(config.width, dtype=dtype, precision=precision.of(dtype), name="proj")
        return project(tokens).astype(jnp.float32)


class PatchEmbed(nn.Module):
    """Tokens of an image: a convolution whose stride is its kernel, as one matrix product.

    Attributes:
        config: the tracker's settings.
    """

    config: Config

    @nn.compact
    def __call__(self, image: Float[Array, "b h w k"]) -> Float[Array, "b n c"]:
        """Turn ``(b, h, w, k)`` into ``(b, (h / patch) * (w / patch), c)``, row-major."""
        batch, height, width, channels = image.shape
        p, features, dtype = self.config.patch, self.config.width, self.config.dtype
        fan_in = p * p * channels
        shape = (p, p, channels, features)
        kernel = parameter(self, "kernel", torch_init(fan_in), shape)
        bias = parameter(self, "bias", torch_init(fan_in), (features,))
        patches = image.reshape(batch, height // p, p, width // p, p, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, fan_in)
        flat = kernel.reshape(fan_in, features).astype(dtype)
        tokens = jnp.dot(patches.astype(dtype), flat, precision=precision.of(dtype))
        return tokens.astype(jnp.float32) + bias[None, None, :]


def attention_logits(
    q: Float[Array, "b q h d"], k: Float[Array, "b l h d"], kept: Bool[Array, "b l"] | None
) -> Float[Array, "b h q l"]:
    """Return scaled products of queries and keys, float32; minus infinity at keys that are not kept."""
    logits = jnp.einsum("bqhd,blhd->bhql", q, k, precision=precision.of(q.dtype))
    logits = logits.astype(jnp.float32) * (q.shape[-1] ** -0.5)
    if kept is None:
        return logits
    return jnp.where(kept[:, None, None, :], logits, -jnp.inf)


def attend(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b l h d"],
    v: Float[Array, "b l h d"],
    kept: Bool[Array, "b l"] | None = None,
) -> Float[Array, "b q c"]:
    """Compute multi-head attention; heads are joined in the last axis.

    Args:
        q: queries.
        k: keys.
        v: values.
        kept: keys that take part; None: all.
    """

    def whole(q: Array, k: Array, v: Array, kept: Array | None = None) -> Array:
        weights = jax.nn.softmax(attention_logits(q, k, kept), axis=-1).astype(v.dtype)
        joined = jnp.einsum("bhql,blhd->bqhd", weights, v, precision=precision.of(v.dtype))
        return joined.reshape(*joined.shape[:2], -1)

    def one_by_one(*parts: Array) -> Array:
        # The attention matrix of one sample stays in a CPU's cache: half the time of the whole batch's.
        # It is computed anew for the gradient instead of kept.
        one = jax.checkpoint(lambda sample: whole(*(part[None] for part in sample))[0])
        return jax.lax.map(one, parts)

    parts = (q, k, v) if kept is None else (q, k, v, kept)
    if q.shape[0] == 1:
        return whole(*parts)
    return by_platform(one_by_one, whole, *parts)


def drop_path(
    branch: Float[Array, "b n c"], rate: float | Array, key: Array
) -> Float[Array, "b n c"]:
    """Drop whole samples of a residual branch and scale up the survivors (stochastic depth)."""
    survive = jax.random.bernoulli(key, 1 - rate, (branch.shape[0], 1, 1))
    return jnp.where(survive, branch / (1 - rate), 0)


class BlockOutput(NamedTuple):
    """What a block returns beside its tokens.

    Attributes:
        tokens: ``(b, l, c)``.
        kept: masked form: ``(b, n)`` search tokens kept so far; otherwise None.
        order: gathered form, where tokens went: ``(b, keep)`` places that the kept ones had before.
        score: ``(b, n)`` elimination score of the tokens before, or None.
    """

    tokens: Float[Array, "b l c"]
    kept: Bool[Array, "b n"] | None
    order: Int[Array, "b k"] | None
    score: Float[Array, "b n"] | None


class Block(nn.Module):
    """Pre-norm transformer block; elimination after the attention, before the MLP.

    Products run in the config's ``dtype``; the residual stream is float32.

    Attributes:
        config: the tracker's settings.
    """

    config: Config

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l c"],
        keep_count: Int[Array, ""] | None = None,
        kept: Bool[Array, "b n"] | None = None,
        row_weights: Float[Array, "b z"] | None = None,
        drop_rate: Float[Array, ""] | None = None,
        *,
        keep: int | None = None,
        search_only: bool = False,
    ) -> BlockOutput:
        """Apply the block.

        Args:
            x: template tokens, then search tokens.
            keep_count: search tokens to keep in the masked form, traced; None: none of that here.
            kept: masked form: search tokens kept so far.
            row_weights: weight of each template row in the range GT_BOX.
            drop_rate: stochastic depth (stream ``drop_path``); None: none.
            keep: search tokens to gather (static); None: no gathered elimination here.
            search_only: leave the template tokens out of the result (static); the last block needs
                them as keys and values only.
        """
        config = self.config
        batch, length, width = x.shape
        first = config.template_grid**2
        dense: dict[str, Any] = {"dtype": config.dtype, "precision": precision.of(config.dtype)}
        fresh = nn.initializers.xavier_uniform() if config.similarity else EMBEDDING
        dense_init = {**dense, "kernel_init": fresh}
        qkv_init = similarity_qkv if config.similarity else EMBEDDING
        present = None
        if kept is not None:
            present = jnp.concatenate([jnp.ones((batch, first), bool), kept], axis=1)

        h = shared(self._norm("norm1"), x)
        qkv = nn.Dense(3 * width, name="attn.qkv", kernel_init=qkv_init, **dense)(h)
        qkv = qkv.reshape(batch, length, 3, config.heads, width // config.heads)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]

        order = score = None
        if keep is not None or keep_count is not None:
            score = self._score(q, k, present, row_weights)
        if keep is not None and keep < length - first:
            assert score is not None
            # The removed tokens' own queries are no longer needed; their keys and values are.
            order = elimination.order_by_score(score)[:, :keep]
            template = jnp.broadcast_to(jnp.arange(first, dtype=order.dtype), (batch, first))
            index = jnp.concatenate([template, order + first], axis=1)
            x, q = elimination.take_tokens(x, index), elimination.take_tokens(q, index)
        if search_only:
            x, q = x[:, first:], q[:, first:]

        branch = nn.Dense(width, name="attn.proj", **dense_init)(attend(q, k, v, present))
        x = x + self._drop(branch, drop_rate)
        hidden = nn.Dense(int(config.mlp_ratio * width), name="mlp.fc1", **dense_init)
        h = hidden(shared(self._norm("norm2"), x))
        branch = nn.Dense(width, name="mlp.fc2", **dense_init)(nn.gelu(h, approximate=False))
        x = x + self._drop(branch, drop_rate)
        if keep_count is not None:
            assert score is not None
            assert kept is not None
            kept = elimination.still_kept(score, kept, keep_count)
        return BlockOutput(x, kept, order, score)

    def _norm(self, name: str) -> nn.Module:
        # Two passes for the variance: E[x^2] - E[x]^2 cancels where a token's mean is large.
        return nn.LayerNorm(
            epsilon=self.config.layer_norm_epsilon,
            use_fast_variance=False,
            dtype=self.config.dtype,
            name=name,
        )

    def _drop(self, branch: Array, rate: Array | None) -> Array:
        branch = branch.astype(jnp.float32)
        return branch if rate is None else drop_path(branch, rate, self.make_rng("drop_path"))

    def _score(
        self, q: Array, k: Array, present: Array | None, row_weights: Array | None
    ) -> Float[Array, "b n"]:
        """Score the search tokens by the attention of the scoring rows, the only ones that are made.

        Sorting carries no gradient to them.
        """
        config = self.config
        first = config.template_grid**2
        scoring = elimination.template_rows(config.template_grid, config.ce_template_range)
        if scoring is None and row_weights is None:
            raise ValueError("template range GT_BOX: row_weights must be given")
        rows = jnp.asarray(range(first) if scoring is None else scoring)
        q, k = jax.lax.stop_gradient(q[:, rows]), jax.lax.stop_gradient(k)
        attention = jax.nn.softmax(attention_logits(q, k, present), axis=-1)
        weights = row_weights if scoring is None else None
        return elimination.elimination_score(attention, first, weights)


class Features(NamedTuple):
    """Output of `VisionTransformer`.

    Attributes:
        search: ``(b, n, c)`` search tokens on their grid, exact zeros where removed.
        template: ``(b, z, c)`` template tokens, or None where only the search was asked for.
        kept: per stage, ``(b, n)`` bool: search tokens left after it.
        scores: per stage, ``(b, n)`` float32 elimination scores on the grid; 0 where a token had been
            removed before (scores of present tokens are positive).
    """

    search: Float[Array, "b n c"]
    template: Float[Array, "b z c"] | None
    kept: tuple[Bool[Array, "b n"], ...]
    scores: tuple[Float[Array, "b n"], ...]


class VisionTransformer(nn.Module):
    """The one-stream backbone.

    Attributes:
        config: the tracker's settings.

    Reference:
        OSTrack, sections 3.1 to 3.3; botaoye/OSTrack ``vit_ce.py`` (facts only).
    """

    config: Config

    def setup(self) -> None:
        """Declare the parameters under their published names."""
        config = self.config
        z, n, width = config.template_grid**2, config.search_grid**2, config.width
        if config.pretraining_grid:
            # Published state dicts hold them; they take no part.
            grid = 1 + config.pretraining_grid**2
            self.cls_token = parameter(self, "cls_token", EMBEDDING, (1, 1, width))
            self.pos_embed = parameter(self, "pos_embed", EMBEDDING, (1, grid, width))
        init_z = init_x = EMBEDDING
        if config.similarity:
            init_z = wave_positions(config.template_grid, width, 1.0)
            init_x = wave_positions(config.search_grid, width, -1.0)
        self.pos_embed_z = parameter(self, "pos_embed_z", init_z, (1, z, width))
        self.pos_embed_x = parameter(self, "pos_embed_x", init_x, (1, n, width))
        self.patch_embed = (
            ConvStem(config, name="patch_embed")
            if config.stem
            else PatchEmbed(config, name="patch_embed.proj")
        )
        self.blocks = [Block(config, name=f"blocks.{i}") for i in range(config.depth)]
        self.norm = nn.LayerNorm(
            epsilon=config.layer_norm_epsilon, use_fast_variance=False, dtype=jnp.float32
        )

    def embed_template(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b z c"]:
        """Make tokens of a normalised template, positions added; the same for a whole track."""
        tokens = self.patch_embed(image)
        self.sow("intermediates", "patches_z", tokens)
        return tokens + self.pos_embed_z

    def embed_search(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        """Make tokens of a normalised search region, positions added."""
        tokens = self.patch_embed(image)
        self.sow("intermediates", "patches_x", tokens)
        return tokens + self.pos_embed_x

    def __call__(
        self,
        z: Float[Array, "b z c"],
        x: Float[Array, "b n c"],
        keep_counts: tuple[int, ...] | Int[Array, "stages"] | None = None,
        row_weights: Float[Array, "b z"] | None = None,
        train: bool = False,
        search_only: bool = False,
    ) -> Features:
        """Relate template and search tokens.

        Args:
            z: from `embed_template`.
            x: from `embed_search`.
            keep_counts: search tokens kept by each stage. None: from ``ce_keep_ratios``. Python ints:
                the gathered form. An int32 array, which may be traced: the masked form.
            row_weights: weight of each template row in the range GT_BOX.
            train: draw stochastic depth.
            search_only: do not compute the template's output tokens.
        """
        config = self.config
        batch, length = x.shape[:2]
        first = z.shape[1]
        if keep_counts is None:
            keep_counts = elimination.keep_counts(config.ce_keep_ratios, length)
        masked = not isinstance(keep_counts, tuple)
        if len(keep_counts) != len(config.ce_blocks):
            raise ValueError(f"{len(keep_counts)} keep counts for {len(config.ce_blocks)} stages")
        kept = jnp.ones((batch, length), bool) if masked and config.ce_blocks else None
        places = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
        tokens = jnp.concatenate([z, x], axis=1)
        stages: list[Array] = []
        scores: list[Array] = []
        for i, block in enumerate(self.blocks):
            keep, keep_count = None, None
            if i in config.ce_blocks:
                count: Any = keep_counts[config.ce_blocks.index(i)]
                keep, keep_count = (None, count) if masked else (count, None)
            last = search_only and i == config.depth - 1
            before, before_kept = places, kept
            # Stochastic depth rises linearly from 0.
            rate = config.drop_path_rate * i / max(config.depth - 1, 1)
            out = shared(
                block,
                tokens,
                keep_count,
                kept,
                row_weights,
                rate if train and rate else None,
                remat=config.remat,
                keep=keep,
                search_only=last,
            )
            tokens, kept = out.tokens, out.kept
            if out.order is not None:
                places = elimination.take_tokens(places, out.order)
            if out.score is not None:
                score = elimination.recover(out.score[..., None], before, length)[..., 0]
                scores.append(score if before_kept is None else jnp.where(before_kept, score, 0))
                ones = jnp.ones(places.shape, bool)[..., None]
                spread = elimination.recover(ones, places, length)[..., 0]
                stages.append(spread if kept is None else kept)
            self._record(f"block{i}", tokens, places, kept, length, last)
        tokens = self.norm(tokens)
        template = None if search_only else tokens[:, :first]
        search = tokens if search_only else tokens[:, first:]
        if places.shape[1] < length:
            search = elimination.recover(search, places, length)
        if kept is not None:
            search = jnp.where(kept[:, :, None], search, 0)
        return Features(search, template, tuple(stages), tuple(scores))

    def _record(
        self, name: str, tokens: Array, places: Array, kept: Array | None, length: int, last: bool
    ) -> None:
        """Keep a block's tokens for study, on the full grid; costs nothing unless asked for."""
        if last or not self.is_mutable_collection("intermediates"):
            return
        first = tokens.shape[1] - places.shape[1]
        search = elimination.recover(tokens[:, first:], places, length)
        if kept is not None:
            search = jnp.where(kept[:, :, None], search, 0)
        self.sow("intermediates", name, jnp.concatenate([tokens[:, :first], search], axis=1))
