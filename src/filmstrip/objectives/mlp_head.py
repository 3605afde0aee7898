"""Classification by an MLP: fully connected layers between the encoder's map and the classes."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.objectives.labels import last_layer
from filmstrip.protocols import Encoder, Grid


class MLPClassification(Classification):
    """A clip's tokens, all in one vector, through layers of ``hidden`` units with ReLU and dropout, then to classes.

    ``grid`` is that of the clips it is made for: no others fit. Without one, the tokens' mean goes in, and clips of
    any size fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: ClassificationConfig,
        *,
        hidden: Sequence[int],
        grid: Grid | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(encoder, config)
        self.grid = grid
        inputs = encoder.width if grid is None else encoder.width * grid.t * grid.h * grid.w
        self.hidden = nn.Sequential()
        for width in hidden:
            if len(self.hidden):
                self.hidden.append(nn.Dropout(config.dropout))
            self.hidden += nn.Sequential(nn.Linear(inputs, width, bias=bias), nn.ReLU(inplace=True))
            inputs = width
        self.head = last_layer(inputs, config)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video.

        Raises:
            ValueError: the encoder's grid is not the one that this network was built for.
        """
        features = self.encoder(video)
        if self.grid is None:
            return self.head(self.dropout(self.hidden(features.pooled())))
        if features.grid != self.grid:
            raise ValueError(
                f"clips of {tuple(video.shape[1:])} (T C H W) give a grid of {tuple(features.grid)}; the fully "
                f"connected layers are made for {tuple(self.grid)}"
            )
        # Channels first, as published networks flatten their maps.
        return self.head(self.dropout(self.hidden(rearrange(features.tokens, "b n d -> b (d n)"))))
