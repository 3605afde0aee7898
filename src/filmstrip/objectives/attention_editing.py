"""Editing by attention: what one clip's attention lends to another's while both are denoised side by side.

A batch holds sources, then edits, the same number of each. Nothing of the network is changed: the U-Net asks these
objects at every attention (:class:`~filmstrip.models.video_unet.AttentionControl`).
"""

from __future__ import annotations

from difflib import SequenceMatcher

import torch
from torch import Tensor

from filmstrip.models.video_unet import Place
from filmstrip.nn.attention import attend
from filmstrip.objectives.diffusion_sampling import DiffusionSampling


class Steps:
    """Counts the steps of sampling, for controls that end or begin with one."""

    def __init__(self, sampling: DiffusionSampling) -> None:
        self.total = sampling.steps
        self.done = 0

    @property
    def share(self) -> float:
        """Share of the steps that are done."""
        return self.done / self.total


def align(source: list[int], edit: list[int]) -> tuple[Tensor, Tensor]:
    """For each of ``M`` ids of the edit's text the place of its counterpart in the source's (``M`` int64), and
    whether there is one (``M`` float).

    Equal words are counterparts, and so are the words of a stretch that was replaced by one of the same length
    (Prompt-to-Prompt's replacement); words that were added have none (its refinement).
    """
    places, has = torch.zeros(len(edit), dtype=torch.int64), torch.zeros(len(edit))
    for kind, i, i_end, j, j_end in SequenceMatcher(None, source, edit, autojunk=False).get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            places[j:j_end] = torch.arange(i, i_end)
            has[j:j_end] = 1.0
    return places, has


class PromptToPrompt:
    """Hertz et al. 2023: the edit attends to its text as the source attends to the words' counterparts, for the first
    ``cross_share`` of the steps, and within frames just as the source does, for the first ``self_share``.

    ``texts`` are the ids of both texts, of one length. Maps are computed only where they are exchanged.
    """

    def __init__(
        self, steps: Steps, source: Tensor, edit: Tensor, *, cross_share: float = 0.8, self_share: float = 0.4
    ) -> None:
        """``source`` and ``edit`` are token ids ``B L``."""
        self.steps, self.cross_share, self.self_share = steps, cross_share, self_share
        pairs = [align(a, b) for a, b in zip(source.tolist(), edit.tolist())]
        self.places = torch.stack([places for places, _ in pairs]).to(edit.device)
        self.has = torch.stack([has for _, has in pairs]).to(edit.device)

    def __call__(self, place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """See :class:`~filmstrip.models.video_unet.AttentionControl`."""
        if place.kind == "self" and self.steps.share < self.self_share:
            (q0, _), (k0, _) = q.chunk(2), k.chunk(2)
            return attend(torch.cat([q0, q0]), torch.cat([k0, k0]), v)
        if place.kind == "cross" and self.steps.share < self.cross_share:
            return self._exchanged(place, q, k, v)
        return None

    def _exchanged(self, place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention to texts, the edit's by the source's maps where words have counterparts."""
        scores = (q.float() @ k.float().transpose(-2, -1)) * q.shape[-1] ** -0.5
        source, edit = scores.softmax(dim=-1).chunk(2)
        # Rows are frames of clips, which share their texts.
        places, has = (x.repeat_interleave(place.num_frames, dim=0) for x in (self.places, self.has))
        lent = source.gather(3, places[:, None, None].expand_as(edit))
        has = has[:, None, None]
        maps = torch.cat([source, has * lent + (1 - has) * edit])
        return (maps @ v.float()).to(v.dtype)
