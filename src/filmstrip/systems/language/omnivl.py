"""OmniVL: one encoder for images and videos, which learn from captions and from labels, images first.

A transformer whose attention is divided over time and space sees clips; an image passes through the same weights
without time. Its class token is contrasted with BERT's of the text; one decoder judges pairs of clip and text, and
another one writes texts, both by cross-attention to the clip's patches. Labels are texts too, made of their names: in
the contrast all clips and texts of a class belong together, and a caption belongs to its own clip alone (UniVLC).
Learning is decoupled: from images alone first, then from images and videos together. Wang et al., "OmniVL: One
Foundation Model for Image-Language and Video-Language Tasks", NeurIPS 2022. The losses are in
:mod:`filmstrip.objectives.three_losses`, the encoder in :mod:`filmstrip.models.video_transformer`.

    filmstrip train language.omnivl:base_images --data CAPTIONED LABELLED --data.weights 14 1 \
        --data.reads.tokenizer BERT --out runs/images
    filmstrip train language.omnivl:base_joint --data IMAGES VIDEOS --data.weights 1 1 --init runs/images

Samples with a class and without a caption get captions from ``data.reads.prompts``; what is contrasted by class are
these alone. A clip is an image if all its frames are equal, as those of an image beside videos are.

The paper leaves open the size of the queue, the momentum, the dimension of what is contrasted, rates and batches: all
are BLIP's. Where we deviate: UniVLC is the mean over all that match, not their sum, so that a class with many keys in
the queue weighs no more than a caption; where nothing but its own pair matches, it is the usual contrast. Images and
clips have one filter of patches (of a tubelet of several frames, an image has the sum), which is that of one frame
where tubelets have one, as here. An image beside clips takes as long as a clip. The class token is not among what
decoders read.

The paper reports, with decoupled joint pretraining, recall at 1 of 82.1 and 64.8 on COCO (from image to text, from
text to image) and of 47.8 on MSR-VTT (from text to video), and 39.8 BLEU-4 and 133.9 CIDEr on COCO's captions; with
images alone 80.9, 63.0, 38.2, 39.3 and 131.6; with images, then videos 79.7, 61.8, 42.5, 38.6 and 129.5; with both
from scratch 50.2, 35.0, 23.6, 29.7 and 94.6.

``filmstrip claims omnivl_joint`` asks what images first are worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from filmstrip.bounds import Share
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.text_transformer import TextArchitecture, TextTransformer
from filmstrip.models.video_transformer import DIVIDED, SpaceTimeTransformer, TransformerArchitecture, as_many_frames
from filmstrip.objectives.three_losses import ThreeLosses, ThreeLossesConfig
from filmstrip.protocols import Batch
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

_TIME = ("time_norm", "time_attention", "time_fc")
"""Parts of a block that images do without."""


@dataclass(frozen=True, kw_only=True)
class OmniVLConfig(ThreeLossesConfig):
    """An encoder of images and clips, one of texts, two decoders, and three losses."""

    vision: TransformerArchitecture
    """Encoder of images and clips."""
    softness: Share = 0.0
    """Weight of the copies' similarities in the targets of contrast, beside the matching pairs."""

    def for_clip(self, clip: Clip) -> Self:
        """With clips of another length and size."""
        return replace(self, vision=replace(self.vision, num_frames=clip.num_frames, size=clip.size))

    def build(self) -> OmniVL:
        """Build the networks with fresh weights.

        Raises:
            UserError: matching is to be learnt without contrast.
        """
        self.check_losses()
        return OmniVL(self)


class OmniVL(ThreeLosses):
    """See :class:`~filmstrip.objectives.three_losses.ThreeLosses`.

    Built for clips of one step of time, it learns nothing of time: a network for longer clips that starts from it
    begins as it is (:meth:`at_own_length`).
    """

    config: OmniVLConfig
    encoder: SpaceTimeTransformer
    alignment_decoder: TextTransformer
    generation_decoder: TextTransformer
    layered: ClassVar[tuple[str, ...]] = ("encoder", "text", "alignment_decoder", "generation_decoder")

    def __init__(self, config: OmniVLConfig) -> None:
        encoder = SpaceTimeTransformer(DIVIDED, config.vision, time_positions=True, grows=True, images=True)
        for block in encoder.blocks:  # a clip is seen as apart frames are, until it is learnt what time adds
            nn.init.zeros_(block.time_fc.weight)
            nn.init.zeros_(block.time_fc.bias)
        alone = replace(config.text, norm="post", cross_every=None)
        reading = replace(alone, cross_every=1, context_width=config.vision.width)
        decoders = {name: TextTransformer(reading) for name in ("alignment_decoder", "generation_decoder")}
        super().__init__(config, encoder=encoder, text=TextTransformer(alone), others=decoders)
        if encoder.grid.t == 1 and encoder.time_pos_embed is not None:
            encoder.time_pos_embed.requires_grad_(False)

    @property
    def judge(self) -> TextTransformer:
        """The alignment decoder."""
        return self.alignment_decoder

    @property
    def writer(self) -> TextTransformer:
        """The generation decoder."""
        return self.generation_decoder

    def seen(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The class token ``B C`` and the patches ``B N C``."""
        found = self.encoder(video)
        assert found.summary is not None
        return found.summary[:, 0], found.tokens

    def marks(self, batch: Batch) -> Tensor:
        """A sample's index in the split, or a negative number of the class that its text names."""
        if (named := batch.get("named_class")) is None:
            return batch["index"]
        return torch.where(named < 0, batch["index"], -2 - named)  # -1 is that of an empty place in the queue

    def idle(self) -> list[str]:
        """Parts that the chosen losses, or images, do not reach."""
        losses, unused = self.config.losses, super().idle()
        parts = {"contrast": "text", "matching": "alignment_decoder", "captioning": "generation_decoder"}
        unused += [name for loss, name in parts.items() if loss not in losses]
        if self.encoder.grid.t == 1:
            unused += [f"encoder.blocks.{i}.{part}" for i in range(self.encoder.depth) for part in _TIME]
        return unused

    def at_own_length(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.Grows`: positions of frames that are missing begin at zero."""
        return {
            name: as_many_frames(value, self.encoder.grid.t) if name.endswith("time_pos_embed") else value
            for name, value in state.items()
        }


def tiny() -> Run:
    """Moving shapes with captions, four frames of 48 x 48 pixels; two CPU cores train it in a minute."""
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=400, num_test=60, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=OmniVLConfig(
            vision=TransformerArchitecture(
                width=64, depth=3, num_heads=4, num_frames=4, size=48, patch_size=12, linear_init="glorot"
            ),
            text=TextArchitecture(
                width=64, depth=2, num_heads=4, mlp_ratio=2.0, vocab_size=130, max_length=16, linear_init="glorot"
            ),
            embed_dim=32,
            queue_size=64,
            momentum=0.9,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.05, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(200)),
        evals=(Retrieval(),),
    )


def base_images() -> Run:
    """The first stage: ViT-B/16 and BERT's base size on images, with captions or labels."""
    return _base(1)


def base_joint() -> Run:
    """The second stage: 8 frames of videos, beside images, from a run of the first."""
    return _base(8)


def _base(num_frames: int) -> Run:
    return Run(
        data=Data(
            reads=Captioned(max_length=30, prompts=("{}", "this is {}", "an example of {}", "what is shown is {}")),
            clip=Clip(num_frames=num_frames, sampling="segments", size=224, crop="random_resized", area=(0.2, 1.0)),
            augment=Augment(mirror=0.0),
            batch_size=2880,
            num_workers=16,
        ),
        objective=OmniVLConfig(
            vision=TransformerArchitecture(
                width=768, depth=12, num_heads=12, num_frames=num_frames, size=224, patch_size=16
            ),
            text=TextArchitecture(
                width=768, depth=12, num_heads=12, norm_eps=1e-12, dropout=0.1, vocab_size=30_524, max_length=512
            ),
        ),
        optim=AdamW(
            lr=3e-4, weight_decay=0.05, schedule=Cosine(warmup=Steps(3000), start=1e-6 / 3e-4, final=1e-6 / 3e-4)
        ),
        train=Loop(length=Epochs(20), precision="bfloat16", checkpoint=True),
        evals=(Retrieval(rerank=128),),
    )
