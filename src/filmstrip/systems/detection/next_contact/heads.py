"""What is said of each proposed box: its noun, the verb, the seconds to contact, and where the box really is.

The head of StillFast (Ragusa et al. 2023) as its authors released it (``RoiHeadsSTAv2``, ``concat_residual``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.roi_align import roi_align_levels
from filmstrip.protocols import Batch, NextContacts
from filmstrip.randomness import uniform
from filmstrip.systems.detection.next_contact import boxes as geometry
from filmstrip.systems.detection.next_contact.pyramid import SMOOTH

CELLS = 7
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class Said(NamedTuple):
    """Outputs for ``R`` boxes of each clip; class 0 is the background."""

    nouns: Tensor
    """Logits ``B R K+1``."""
    verbs: Tensor
    """Logits ``B R V+1``."""
    seconds: Tensor
    """``B R``."""
    offsets: Tensor
    """``B R K+1 4``."""


class ContactHead(nn.Module):
    """Features of a box and of the whole frame, and four linear layers."""

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        num_nouns: int,
        num_verbs: int,
        box_strides: float,
        samples: int | None,
        chosen: int,
    ) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(channels * CELLS**2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.mapper = nn.Sequential(nn.Linear(channels + width, width), nn.ReLU(), nn.Linear(width, width))
        self.noun = nn.Linear(width, num_nouns + 1)
        self.verb = nn.Linear(width, num_verbs + 1)
        self.seconds = nn.Linear(width, 1)
        self.offset = nn.Linear(width, 4 * (num_nouns + 1))
        self.box_strides, self.samples, self.chosen = box_strides, samples, chosen

    def forward(self, maps: list[Tensor], boxes: Tensor, size: tuple[int, int]) -> Said:
        """What is said of ``boxes`` ``B R 4`` in frames of ``size`` pixels, from maps ``B C H W``, finest first."""
        cells = self._cells(maps, boxes, size)
        x = self.hidden(rearrange(cells, "b r c p q -> b r (c p q)"))
        whole = maps[-1].mean(dim=(2, 3))[:, None].expand(-1, x.shape[1], -1)
        x = x + self.mapper(torch.cat([x, whole], dim=-1))
        return Said(
            self.noun(x).float(),
            self.verb(x).float(),
            F.softplus(self.seconds(x).float())[..., 0],
            self.offset(x).float().unflatten(-1, (-1, 4)),
        )

    def _cells(self, maps: list[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """RoIAlign ``B R C 7 7``, each box on the level that suits its size.

        A level serves boxes of a side from ``box_strides`` of its strides on, up to twice as much.
        """
        side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1).sqrt()
        finest = size[0] / maps[0].shape[2]
        level = (side / (finest * self.box_strides)).clamp(min=1e-6).log2() + 1e-6
        level = level.floor().clamp(0, len(maps) - 1)
        on_maps = []
        for feature_map in maps:
            scale = [n / pixels for n, pixels in zip(feature_map.shape[2:], size)]
            on_maps.append(boxes * torch.tensor([scale[1], scale[0]] * 2, device=boxes.device))
        return roi_align_levels(maps, on_maps, level, size=CELLS, samples=self.samples, aligned=False)

    @torch.no_grad()
    def choose(self, proposed: Tensor, there: Tensor, boxes: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Boxes to learn from, ``B R 4``; which are positive and which negative, ``B R``; their objects, ``B R``.

        Annotated boxes are among those that are chosen from, a quarter of which are positive at most.
        """
        real = batch["is_object"]
        proposed, there = torch.cat([proposed, boxes], dim=1), torch.cat([there, real], dim=1)
        overlap = torch.where(real[:, None], geometry.overlaps(proposed, boxes), -1.0)
        index, positive, negative = geometry.match(overlap, above=0.5, below=0.5, nearest=False)
        matches = geometry.Matches(index, positive & there, negative & there)
        chance = uniform(batch["seed"], proposed.shape[1], "next_contact.boxes")
        positive, negative = geometry.sample(matches, chance, count=self.chosen, share=0.25)
        order = (2.0 * positive + negative).topk(min(self.chosen, proposed.shape[1]), dim=1).indices
        return tuple(geometry.taken(x, order) for x in (proposed, positive, negative, index))

    def losses(self, said: Said, chosen: tuple[Tensor, ...], boxes: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of noun and verb over all chosen boxes, errors of offsets and seconds over positive ones."""
        found, positive, negative, index = chosen
        noun, verb, seconds = (geometry.taken(batch[key], index) for key in ("noun", "verb", "contact"))
        noun, verb = torch.where(positive, noun + 1, 0), torch.where(positive, verb + 1, 0)
        weight = (positive | negative).float()
        count, objects = weight.sum().clamp(min=1), positive.sum().clamp(min=1)
        target = geometry.offsets_of(geometry.taken(boxes, index), found, WEIGHTS)
        own = said.offsets.gather(2, noun[..., None, None].expand(-1, -1, -1, 4))[:, :, 0]
        error = F.smooth_l1_loss(own, target, beta=SMOOTH, reduction="none").sum(dim=-1)
        late = F.smooth_l1_loss(said.seconds, seconds, reduction="none")
        nats = {
            name: F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(weight)
            for name, logits, label in (("noun", said.nouns, noun), ("verb", said.verbs, verb))
        }
        return {
            "noun": (nats["noun"] * weight).sum() / count,
            "verb": (nats["verb"] * weight).sum() / count,
            "box": (error * positive).sum() / count,
            "seconds": (late * positive).sum() / objects,
        }

    def contacts(
        self,
        said: Said,
        proposed: Tensor,
        there: Tensor,
        size: tuple[int, int],
        *,
        min_score: float,
        candidates: int,
        count: int,
    ) -> NextContacts:
        """The ``count`` best contacts: a box with a noun and its most probable verb, whose probabilities' product is
        the score. Of those of one noun and verb that overlap by more than half the best one is kept."""
        nouns = said.nouns.softmax(dim=-1)[..., 1:]
        best, verb = said.verbs.softmax(dim=-1)[..., 1:].max(dim=-1)
        kinds = nouns.shape[2]
        score = torch.where(there[..., None], nouns * best[..., None], 0.0).flatten(1)
        score, index = score.topk(min(candidates, score.shape[1]), dim=1)
        row, noun = index // kinds, index % kinds
        offsets = geometry.taken(said.offsets[:, :, 1:].flatten(1, 2), index)
        found = geometry.boxes_of(offsets, geometry.taken(proposed, row), WEIGHTS)
        found = geometry.clipped(found, *size)
        large = (found[..., 2:] - found[..., :2] >= 1e-2).all(dim=-1)
        score = torch.where((score > min_score) & large, score, -torch.inf)
        score, order = score.sort(dim=1, descending=True, stable=True)
        found, noun, row = (geometry.taken(x, order) for x in (found, noun, row))
        verb = geometry.taken(verb, row)
        kept = geometry.survivors(found, score, 0.5, groups=verb * kinds + noun)
        score, index = torch.where(kept, score, 0.0).topk(min(count, score.shape[1]), dim=1)
        scale = torch.tensor([size[1], size[0]] * 2, device=found.device, dtype=found.dtype)
        return NextContacts(
            geometry.taken(found, index) / scale,
            geometry.taken(noun, index),
            geometry.taken(verb, index),
            geometry.taken(said.seconds, geometry.taken(row, index)),
            score,
        )
