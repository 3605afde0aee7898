"""What an actor does: features of the clip within their box, and one yes or no for each class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from filmstrip.nn.roi_align import roi_align
from filmstrip.protocols import Batch, Encoder, Loss, Objective


class ActorRoI(Objective):
    """An encoder with a head for the boxes of a key frame; a :class:`~filmstrip.protocols.Detector`.

    The encoder's tokens are averaged over time, RoIAlign reads ``size x size`` cells of each box, of which the
    largest value of each channel goes through a linear layer (Feichtenhofer et al. 2019). Classes are independent of
    each other. Any encoder will do whose tokens lie on a grid in space.
    """

    requires = ("video", "boxes", "is_actor", "box_labels")

    def __init__(
        self, encoder: Encoder, num_classes: int, *, size: int = 7, aligned: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = size
        self.aligned = aligned
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def logits(self, video: Tensor, boxes: Tensor) -> Tensor:
        """``B M K`` of ``B T C H W`` video and ``boxes`` (``B M 4``, shares of its width and height)."""
        features = self.encoder(video)
        t, h, w = features.grid
        places = reduce(features.tokens, "b (t h w) d -> b d h w", "mean", t=t, h=h)
        left, top, right, bottom = boxes.unbind(dim=-1)
        on_map = torch.stack([left * w, top * h, right * w, bottom * h], dim=-1)
        cells = roi_align(places, on_map, size=self.size, aligned=self.aligned)
        return self.head(self.dropout(reduce(cells, "b m d p q -> b m d", "max")))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Binary cross-entropy, the mean over actors and classes; also logs how many of both were told rightly."""
        labels, there = batch["box_labels"], batch["is_actor"]
        logits = self.logits(batch["video"], batch["boxes"]).float()
        count = there.sum().clamp(min=1)
        wrong = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=-1)
        total = (wrong * there).sum() / count
        with torch.no_grad():
            right = (((logits > 0) == (labels > 0)).float().mean(dim=-1) * there).sum() / count
        return Loss(total, {"right": right, "actors": there.sum(dim=1).float().mean()})

    def detect(self, video: Tensor, boxes: Tensor) -> Tensor:
        """Probabilities ``B M K`` of each class within boxes."""
        return self.logits(video, boxes).float().sigmoid()

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; the head comes after its last."""
        prefix = "encoder."
        if name.startswith(prefix):
            return self.encoder.depth_of(name.removeprefix(prefix))
        return self.encoder.depth + 1
