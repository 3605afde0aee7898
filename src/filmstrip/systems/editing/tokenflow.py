"""TokenFlow: key frames are edited together, and what they show flows to the other frames as in the source.

The source is inverted by DDIM and denoised beside its edit. In every step a key frame is drawn from each stretch of
frames; key frames attend to all key frames. Every other frame takes its self-attention's outputs from the key frames
before and after it, at the positions whose outputs in the source are nearest to its own: what was the same thing in
the source stays the same thing in the edit.
Geyer et al., "TokenFlow: Consistent Diffusion Features for Consistent Video Editing", ICLR 2024, of a network of
images.

    filmstrip train editing.tokenflow --out runs/tokenflow
    filmstrip edit runs/tokenflow clip.mp4 --from "a disc moves left on grass" --to "... on sand" --type background

Network, training and sizes are those of ``editing.sdedit`` (``filmstrip edit RUN ... --by editing.tokenflow`` edits
with the network of any other editor's run, of images or of video). The two clips side by side are in
``objectives/frame_editing.py``; attention is replaced from outside, and nothing of the network is changed.

Where we deviate: of Plug-and-Play, by which the paper edits key frames, queries and keys of the source's attention
are kept for the first half of the steps, and the features of one convolution, which no attention shows, are not;
frames between two key frames blend them evenly by their distance (the published code: by a sigmoid of that, and the
key frame of a stretch stands in its middle, wherever it was drawn), so that a key frame is itself; positions are
compared by the outputs of the source's attention, as the paper says (the published code: by its inputs).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, Share
from filmstrip.models.video_unet import Place
from filmstrip.nn.attention import attend
from filmstrip.objectives.attention_editing import Steps
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.frame_editing import edit_beside_source
from filmstrip.objectives.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from filmstrip.protocols import VideoEdit
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find


@dataclass(frozen=True, kw_only=True)
class TokenFlowConfig(LatentDiffusionConfig):
    """Text to video or to images, and how an edit follows its source."""

    stretch: Count = field(default=8, metadata=FREE)
    """Number of frames of which one, drawn anew in each step, is a key frame."""
    kept_share: Share = field(default=0.5, metadata=FREE)
    """Share of the steps in which key frames attend as the source does (Plug-and-Play)."""
    first_kept: CountOrZero = field(default=8, metadata=FREE)
    """Number of the U-Net's first transformer that does, counted from 0: 8 of Stable Diffusion's 16 is the second one
    of its decoder."""

    def build(self) -> TokenFlow:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, or sizes do not fit.
        """
        return TokenFlow(self)


class Flow:
    """Self-attention of edits (``B T`` rows after as many of their sources) by key frames."""

    def __init__(self, steps: Steps, seeds: Tensor, *, stretch: int, kept_share: float, first_kept: int) -> None:
        self.steps, self.seeds = steps, seeds
        self.stretch, self.kept_share, self.first_kept = stretch, kept_share, first_kept

    def __call__(self, place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """See :class:`~filmstrip.models.video_unet.AttentionControl`."""
        if place.kind != "self":
            return None
        (q0, q1), (k0, k1), (v0, v1) = (x.chunk(2) for x in (q, k, v))
        source = attend(q0, k0, v0)
        if place.layer >= self.first_kept and self.steps.share < self.kept_share:
            q1, k1 = q0, k0
        keys = key_frames(self.seeds, place.num_frames, self.stretch, self.steps.done)
        clips = (rearrange(x, "(b t) h n d -> b t h n d", t=place.num_frames) for x in (source, q1, k1, v1))
        edits = [_edited(*clip, own) for *clip, own in zip(*clips, keys)]
        return torch.cat([source, *edits])


def key_frames(seeds: Tensor, num_frames: int, stretch: int, step: int) -> Tensor:
    """A frame of each stretch of so many, the last of which may be shorter, drawn for each seed: ``B K``."""
    first = torch.arange(0, num_frames, stretch, device=seeds.device)
    sizes = (num_frames - first).clamp(max=stretch)
    return first + (uniform(seeds, len(first), "tokenflow.key_frames", step) * sizes).long()


def _edited(source: Tensor, q: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
    """Outputs ``T H N D`` of a clip's edit, by the source's outputs and the edit's queries, keys and values."""
    every = [rearrange(x[keys], "k h n d -> 1 h (k n) d") for x in (q, k, v)]
    shown = rearrange(attend(*every), "1 h (k n) d -> k n (h d)", k=len(keys))
    found = spread(rearrange(source, "t h n d -> t n (h d)"), shown, keys)
    return rearrange(found, "t n (h d) -> t h n d", h=q.shape[1])


def spread(source: Tensor, shown: Tensor, keys: Tensor) -> Tensor:
    """Features ``T N C`` of all frames from those of key frames (``K N C``), by a source's own features (``T N C``).

    Each position takes those of the nearest position, by the cosine of the source's features, of the key frame before
    and of the one after it, blended by how near these frames are; at the ends of the clip those of one alone.
    """
    frames = torch.arange(len(source), device=source.device)
    after = torch.searchsorted(keys, frames)  # the first key frame that is not before a frame
    before, after = (after - 1).clamp(min=0), after.clamp(max=len(keys) - 1)
    directions = F.normalize(source.float(), dim=-1)

    def taken(which: Tensor) -> Tensor:
        likeness = directions @ directions[keys[which]].mT
        nearest = likeness.argmax(dim=-1)[..., None].expand(-1, -1, shown.shape[-1])
        return shown[which].gather(1, nearest)

    to_before, to_after = (frames - keys[before]).abs(), (keys[after] - frames).abs()
    weight = (to_before / (to_before + to_after).clamp(min=1)).to(shown.dtype)[:, None, None]
    weight = torch.where((before == after)[:, None, None], torch.zeros_like(weight), weight)
    return (1 - weight) * taken(before) + weight * taken(after)


class TokenFlow(LatentDiffusion):
    """Text to video, or to images, that edits by what flows from key frames."""

    reads_source_text = True
    config: TokenFlowConfig

    def edit(self, edit: VideoEdit) -> Tensor:
        """Edited video ``B T 3 H W`` in 0..1; see :class:`~filmstrip.protocols.VideoEditor`."""
        return edit_beside_source(
            self,
            edit,
            lambda steps: Flow(
                steps,
                edit.seeds,
                stretch=self.config.stretch,
                kept_share=self.config.kept_share,
                first_kept=self.config.first_kept,
            ),
        )


def tiny() -> Run:
    """``editing.sdedit:tiny``, with a key frame in each four frames; its last two transformers follow the source."""
    run = find("editing.sdedit:tiny")
    return replace(run, objective=TokenFlowConfig(**vars(run.objective), stretch=4, first_kept=2))


def text_to_image_256() -> Run:
    """MoCA's comparator: ``editing.sdedit:text_to_image_256`` with the published stretch, shares and sampling."""
    run = find("editing.sdedit:text_to_image_256")
    return replace(run, objective=TokenFlowConfig(**vars(run.objective) | {"sampling": DiffusionSampling(steps=50)}))
