"""Vision transformer over template and search tokens together, with early candidate elimination.

Parameters carry the names of the published OSTrack checkpoints, which are those of timm and MAE.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtrack.trackers.ostrack import elimination
from jaxtrack.trackers.ostrack.attention import attend, attention_logits, drop_path
from jaxtrack.trackers.ostrack.vit_embed import (
    EMBEDDING,
    ConvStem,
    PatchEmbed,
    highest,
    similarity_qkv,
    wave_positions,
)


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

    Attributes:
        heads: attention heads.
        template_length: template tokens, first in the sequence.
        rows: template rows that score the search tokens; None: weighted rows (`row_weights`).
        mlp_ratio: hidden width of the MLP over the width.
        epsilon: of the layer norms.
        drop_rate: stochastic depth.
        dtype: of the computation; the residual stream is float32.
        similarity: start attention as likeness of content (`similarity_qkv`).
    """

    heads: int
    template_length: int
    rows: tuple[int, ...] | None = None
    mlp_ratio: float = 4.0
    epsilon: float = 1e-6
    drop_rate: float = 0.0
    dtype: Any = jnp.float32
    similarity: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l c"],
        keep: int | None,
        search_only: bool,
        train: bool,
        keep_count: Int[Array, ""] | None = None,
        kept: Bool[Array, "b n"] | None = None,
        row_weights: Float[Array, "b z"] | None = None,
    ) -> BlockOutput:
        """Apply the block.

        Args:
            x: template tokens, then search tokens.
            keep: search tokens to gather (static); None: no gathered elimination here.
            search_only: leave the template tokens out of the result (static); the last block needs
                them as keys and values only.
            train: draw stochastic depth (stream ``drop_path``; static).
            keep_count: search tokens to keep in the masked form, traced; None: none of that here.
            kept: masked form: search tokens kept so far.
            row_weights: weight of each template row where ``rows`` is None.
        """
        batch, length, width = x.shape
        first = self.template_length
        dense: dict[str, Any] = {"dtype": self.dtype, "precision": highest(self.dtype)}
        fresh = nn.initializers.xavier_uniform() if self.similarity else EMBEDDING
        dense_init = {**dense, "kernel_init": fresh}
        qkv_init = similarity_qkv if self.similarity else EMBEDDING
        present = None
        if kept is not None:
            present = jnp.concatenate([jnp.ones((batch, first), bool), kept], axis=1)

        h = self._norm("norm1")(x)
        qkv = nn.Dense(3 * width, name="attn.qkv", kernel_init=qkv_init, **dense)(h)
        qkv = qkv.reshape(batch, length, 3, self.heads, width // self.heads)
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
        x = x + self._drop(branch, train)
        h = nn.Dense(int(self.mlp_ratio * width), name="mlp.fc1", **dense_init)(
            self._norm("norm2")(x)
        )
        branch = nn.Dense(width, name="mlp.fc2", **dense_init)(nn.gelu(h, approximate=False))
        x = x + self._drop(branch, train)
        if keep_count is not None:
            assert score is not None
            assert kept is not None
            kept = elimination.still_kept(score, kept, keep_count)
        return BlockOutput(x, kept, order, score)

    def _norm(self, name: str) -> nn.Module:
        # Two passes for the variance: E[x^2] - E[x]^2 cancels where a token's mean is large.
        return nn.LayerNorm(
            epsilon=self.epsilon, use_fast_variance=False, dtype=self.dtype, name=name
        )

    def _drop(self, branch: Array, train: bool) -> Array:
        branch = branch.astype(jnp.float32)
        if not train or self.drop_rate == 0:
            return branch
        return drop_path(branch, self.drop_rate, self.make_rng("drop_path"))

    def _score(
        self, q: Array, k: Array, present: Array | None, row_weights: Array | None
    ) -> Float[Array, "b n"]:
        """Only the attention of the scoring rows is made; sorting carries no gradient to it."""
        first = self.template_length
        if self.rows is None and row_weights is None:
            raise ValueError("template range GT_BOX: row_weights must be given")
        rows = jnp.asarray(range(first) if self.rows is None else self.rows)
        q, k = jax.lax.stop_gradient(q[:, rows]), jax.lax.stop_gradient(k)
        attention = jax.nn.softmax(attention_logits(q, k, present), axis=-1)
        weights = row_weights if self.rows is None else None
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
        template_grid: side of the template's token grid.
        search_grid: side of the search region's token grid.
        patch: side of a patch in pixels.
        width: channels of a token.
        depth: blocks.
        heads: attention heads.
        ce_blocks: blocks that eliminate, counted from 0.
        ce_keep_ratios: their keep ratios when tracking.
        rows: template rows that score the search tokens; None: given per call.
        pretraining_grid: side of the position grid of the pre-trained checkpoint, whose ``cls_token`` and
            ``pos_embed`` the published state dict still holds; they take no part. 0: leave them out.
        mlp_ratio: hidden width of the MLP over the width.
        epsilon: of the layer norms.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        dtype: of the computation.
        remat: recompute each block in the backward pass instead of storing it.
        stem: channels of a convolutional stem, as many as there are factors of two in the patch; empty:
            the patch product.
        similarity: an initialisation for training without pre-training: `similarity_qkv`,
            `wave_positions`.

    Reference:
        OSTrack, sections 3.1 to 3.3; botaoye/OSTrack ``vit_ce.py`` (facts only).
    """

    template_grid: int
    search_grid: int
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    ce_blocks: tuple[int, ...] = ()
    ce_keep_ratios: tuple[float, ...] = ()
    rows: tuple[int, ...] | None = None
    pretraining_grid: int = 14
    mlp_ratio: float = 4.0
    epsilon: float = 1e-6
    drop_path_rate: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    stem: tuple[int, ...] = ()
    similarity: bool = False

    def setup(self) -> None:
        """Declare the parameters under their published names."""
        z, n = self.template_grid**2, self.search_grid**2
        if self.pretraining_grid:
            grid = 1 + self.pretraining_grid**2
            self.cls_token = self.param("cls_token", EMBEDDING, (1, 1, self.width), jnp.float32)
            self.pos_embed = self.param("pos_embed", EMBEDDING, (1, grid, self.width), jnp.float32)
        init_z = init_x = EMBEDDING
        if self.similarity:
            init_z = wave_positions(self.template_grid, self.width, 1.0)
            init_x = wave_positions(self.search_grid, self.width, -1.0)
        self.pos_embed_z = self.param("pos_embed_z", init_z, (1, z, self.width), jnp.float32)
        self.pos_embed_x = self.param("pos_embed_x", init_x, (1, n, self.width), jnp.float32)
        if self.stem and 2 ** len(self.stem) != self.patch:
            raise ValueError(
                f"{len(self.stem)} convolutions of stride 2 for patches of {self.patch}"
            )
        self.patch_embed = (
            ConvStem(self.stem, self.width, self.epsilon, self.dtype, name="patch_embed")
            if self.stem
            else PatchEmbed(self.width, self.patch, self.dtype, name="patch_embed.proj")
        )
        # keep, search_only, train are static: arguments 2, 3, 4 counting self as 0.
        block = nn.remat(Block, static_argnums=(2, 3, 4)) if self.remat else Block
        self.blocks = [
            block(
                self.heads,
                z,
                self.rows,
                self.mlp_ratio,
                self.epsilon,
                self.drop_path_rate * i / max(self.depth - 1, 1),
                self.dtype,
                self.similarity,
                name=f"blocks.{i}",
            )
            for i in range(self.depth)
        ]
        self.norm = nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, dtype=jnp.float32)

    def embed_template(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b z c"]:
        """Tokens of a normalised template, position embedding added; the same for a whole track."""
        tokens = self.patch_embed(image)
        self.sow("intermediates", "patches_z", tokens)
        return tokens + self.pos_embed_z

    def embed_search(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        """Tokens of a normalised search region, position embedding added."""
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
            row_weights: weight of each template row where ``rows`` is None (range GT_BOX).
            train: draw stochastic depth.
            search_only: do not compute the template's output tokens.
        """
        batch, length = x.shape[:2]
        first = z.shape[1]
        if keep_counts is None:
            keep_counts = elimination.keep_counts(self.ce_keep_ratios, length)
        masked = not isinstance(keep_counts, tuple)
        if len(keep_counts) != len(self.ce_blocks):
            raise ValueError(f"{len(keep_counts)} keep counts for {len(self.ce_blocks)} stages")
        kept = jnp.ones((batch, length), bool) if masked and self.ce_blocks else None
        places = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
        tokens = jnp.concatenate([z, x], axis=1)
        stages: list[Array] = []
        scores: list[Array] = []
        for i, block in enumerate(self.blocks):
            keep, keep_count = None, None
            if i in self.ce_blocks:
                count: Any = keep_counts[self.ce_blocks.index(i)]
                keep, keep_count = (None, count) if masked else (count, None)
            last = search_only and i == self.depth - 1
            before, before_kept = places, kept
            out = block(tokens, keep, last, train, keep_count, kept, row_weights)
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
