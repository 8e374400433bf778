"""OSTrack's network: the joint backbone and the centre head."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float, Int

from jaxtrack.trackers.ostrack.config import Config
from jaxtrack.trackers.ostrack.head import CentreHead, CentreMaps
from jaxtrack.trackers.ostrack.vit import Features, VisionTransformer


class OneStream(nn.Module):
    """Backbone and head under their published names.

    Attributes:
        config: the tracker's settings.
    """

    config: Config

    def setup(self) -> None:
        """Declare both parts: tokens are related by the one and read by the other."""
        self.backbone = VisionTransformer(self.config)
        self.box_head = CentreHead(self.config)

    def embed_template(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b z c"]:
        """Make template tokens from a normalised template crop."""
        return self.backbone.embed_template(image)

    def features(
        self,
        template: Float[Array, "b z c"],
        search: Float[Array, "b h w 3"],
        keep_counts: tuple[int, ...] | Int[Array, "stages"] | None = None,
        row_weights: Float[Array, "b z"] | None = None,
        train: bool = False,
        search_only: bool = False,
    ) -> Features:
        """Run the backbone on template tokens and a normalised search crop.

        Args: as in `VisionTransformer.__call__`.
        """
        x = self.backbone.embed_search(search)
        return self.backbone(
            template,
            x,
            keep_counts=keep_counts,
            row_weights=row_weights,
            train=train,
            search_only=search_only,
        )

    def maps(self, search_tokens: Float[Array, "b n c"], train: bool = False) -> CentreMaps:
        """Run the head on the backbone's search tokens."""
        side = self.config.search_grid
        grid = search_tokens.reshape(search_tokens.shape[0], side, side, -1)
        return self.box_head(grid, train)

    def __call__(
        self,
        template: Float[Array, "b h w 3"],
        search: Float[Array, "b k l 3"],
        keep_counts: tuple[int, ...] | Int[Array, "stages"] | None = None,
        row_weights: Float[Array, "b z"] | None = None,
        train: bool = False,
    ) -> CentreMaps:
        """Make maps from two normalised crops, as in training.

        Args: as in `VisionTransformer.__call__`; ``train`` also rules the head's batch normalisation.
        """
        tokens = self.embed_template(template)
        features = self.features(
            tokens,
            search,
            keep_counts=keep_counts,
            row_weights=row_weights,
            train=train,
            search_only=True,
        )
        return self.maps(features.search, train)
