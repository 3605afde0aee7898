"""InstructBLIP: queries between a frozen encoder and a frozen language model also read the instruction, and look for
what is asked.

The instruction's tokens stand beside the queries of BLIP-2's query transformer; only the queries' outputs go on, in
front of the instruction and the answer. Of a video, every frame is read with the same instruction, and the tokens of
the frames follow one another. The query transformer and the layer behind it learn, from answers alone. Dai et al.,
"InstructBLIP: Towards General-purpose Vision-Language Models with Instruction Tuning", NeurIPS 2023.

    filmstrip train language.instructblip:vicuna_7b --data DIALOGUES.json --init BLIP2_RUN \\
        --objective.encoder-run BLIP2_RUN --objective.decoder-run VICUNA --data.reads.tokenizer VICUNA

The network is in ``models/query_transformer.py``, ``models/query_connector.py`` and ``objectives/language.py``.
``--init`` takes a run of ``language.blip2``'s first stage, or a published InstructBLIP with a LLaMA in it (``hf:``,
or a folder), whose queries then learn words anew.

Where we deviate: queries read the instruction in the language model's tokens (published: in BERT's), since a batch
has one tokenizer, with what the format of conversations puts around it. The last layer has no feed-forward network
for text, whose output nothing reads: 185M trained parameters for 188M. Data are not balanced over tasks; dropout of
attention weights is left out.

The paper reports, for FlanT5-XL with and without the instruction in the query transformer: held-in data 94.1 and
89.8, GQA 48.4 and 45.9, ScienceQA 70.4 and 63.4, IconQA 50.0 and 45.8, VizWiz 32.7 and 25.1, iVQA 53.1 and 47.5.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.conversations import ConversationInfo, Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.blip_layout import config_of, from_hub, sizes_of, to_hub
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.image_tower import ImageTower
from filmstrip.models.query_connector import QueryConnector, QueryConnectorConfig, begun_from
from filmstrip.models.query_transformer import INSTRUCTBLIP, QueryTransformerConfig
from filmstrip.models.video_language import Seen
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.objectives.language import Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Batch, Grid, Objective
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InstructBlipConfig(VideoLanguageConfig):
    """A frozen encoder, queries that read the instruction, a linear layer, and a frozen language model."""

    connector: QueryConnectorConfig
    """Query transformer with text, whose vocabulary is that of the data, and the layer to the language model."""
    trains: tuple[Part, ...] = ("connector",)
    """Parts that are trained; the others are frozen, and kept by reference where their run is named."""
    instructed: bool = True
    """Whether queries read the instruction; without, as in BLIP-2, they see the same whatever is asked."""

    hub_types: ClassVar[tuple[str, ...]] = ("instructblip", "instructblipvideo")

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """With the sizes of an ``InstructBlipForConditionalGeneration``, or that of video.

        Raises:
            UserError: its language model is of another family than LLaMA's.
        """
        sizes = sizes_of(config, preprocessing, source, reads_text=self.instructed)
        if self.instructed:
            log.warning("queries read the instruction in the language model's tokens: their words are learnt anew")
        connector = replace(self.connector, queries=sizes.queries)
        encoder = ImageTowerConfig(**sizes.tower)
        return replace(self, encoder=encoder, layer=-1, connector=connector, decoder=sizes.decoder)

    def bind(self, info: DataInfo) -> Self:
        """Take the ids and the size of the vocabulary from the data.

        Raises:
            UserError: the tokenizer is not the language model's.
        """
        bound = super().bind(info)
        if not isinstance(info, ConversationInfo) or not self.instructed:
            return bound
        queries = replace(self.connector.queries, vocab_size=info.tokenizer.size)
        return replace(bound, connector=replace(self.connector, queries=queries))

    def build(self) -> InstructBlip:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, or nothing is trained.
        """
        return InstructBlip(self)


class InstructBlip(VideoLanguage):
    """A language model that reads queries which know what is asked.

    What it sees (``see``) are the encoder's tokens, ``B T M C``; the queries read them with every text.
    """

    blocks_in_transformers = "language_model.model.layers"
    told_by_data = (("qformer_config", "vocab_size"),)
    sees_several = False
    config: InstructBlipConfig
    connector: QueryConnector

    def __init__(self, config: InstructBlipConfig) -> None:
        super().__init__(config)
        self.instructed = config.instructed
        self.longest = config.connector.queries.max_length

    def see(self, video: Tensor) -> Tensor:
        """The encoder's tokens ``B T M C`` of ``B T C H W`` video; zeros for a model that is blind."""
        tokens, grid = self.encoded(video)
        seen = tokens.unflatten(1, (grid.t, -1))
        return seen if self.sees else seen * 0

    def in_text(self, visual: Seen, batch: Batch) -> Seen:
        """Tokens ``B N D`` of the language model: queries' view of what was seen, knowing what is asked.

        That is what stands before the first learnt token, the places of visuals left out.
        """
        assert isinstance(visual, Tensor), "one visual a conversation"
        grid = Grid(visual.shape[1], 1, visual.shape[2])
        if not self.instructed:
            return self.connector(visual.flatten(1, 2), grid)
        text = batch["text"][:, : self.longest]
        end = batch["learnt"].to(torch.int8).argmax(dim=1) if "learnt" in batch else batch["text_length"]
        asked = (torch.arange(text.shape[1], device=text.device) < end[:, None]) & ~torch.isin(
            text, self.placeholders
        )
        return self.connector(visual.flatten(1, 2), grid, text, asked)

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of an InstructBLIP with a LLaMA in it; words of another vocabulary begin anew.

        Raises:
            UserError: a weight has no place here, or words begin anew in a part that is not trained.
        """
        words, found = "connector.reader.bridge.embed.weight", from_instructblip(theirs, self)
        own = self.state_dict().get(words)
        if own is not None and words in found and found[words].shape != own.shape:
            if "connector" not in self.trained:
                raise UserError(
                    f"the queries there read instructions in a vocabulary of {len(found[words])}, and this run has "
                    f"one of {len(own)}, which has to be learnt: train the connector (--objective.trains connector)"
                )
            found[words] = own
        return found

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """An ``InstructBlipVideoForConditionalGeneration``.

        Raises:
            UserError: it has no such encoder, or the place of a visual is outside its vocabulary.
        """
        if not isinstance(self.encoder, ImageTower) or not self.instructed:
            raise UserError("transformers' InstructBLIP has EVA-CLIP's encoder, and reads the instruction")
        bridge = self.config.connector.queries
        config = config_of(self.encoder, bridge, self.decoder.config) | {
            "model_type": "instructblipvideo",
            "architectures": ["InstructBlipVideoForConditionalGeneration"],
            "video_token_index": self.place("<video>"),
        }
        weights = to_instructblip(self)
        # What the last layer makes of text is read by nothing: zeros do.
        layer = f"qformer.encoder.layer.{bridge.depth - 1}"
        for name, tensor in list(weights.items()):
            if name.startswith(f"{layer}.intermediate_query.") or name.startswith(f"{layer}.output_query."):
                weights[name.replace("_query.", ".", 1)] = torch.zeros_like(tensor)
        return config, weights

    def in_transformers(self, video: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Normalised pixels, ids for the queries and for the language model."""
        asked = ~torch.isin(text, self.placeholders)
        pixels = self.encoder.embed.normalise(video)
        return {
            "pixel_values": pixels[:, 0] if video.shape[1] == 1 else pixels,
            "qformer_input_ids": text.masked_fill(~asked, 0),
            "qformer_attention_mask": asked.long(),
            "input_ids": self.spread(text, self.connector.num_queries * video.shape[1]),
        }

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The encoder, its norm and the query transformer of BLIP-2's first stage."""
        return begun_from(other, self, "connector.reader")


def from_instructblip(theirs: Mapping[str, Tensor], ours: InstructBlip) -> Weights:
    """Our weights from those of an ``InstructBlipVideoForConditionalGeneration`` with a LLaMA in it.

    Its last layer's network for text is left out: nothing reads what it makes.

    Raises:
        UserError: they have names that no such model has.
    """
    given = from_hub(theirs, ours.decoder.config, INSTRUCTBLIP)
    last = f"connector.reader.bridge.blocks.{len(ours.connector.reader.bridge.blocks) - 1}.text_mlp"
    statistics = {name: x for name, x in ours.state_dict().items() if ".normalise." in name}
    return {name: x for name, x in given.items() if not name.startswith(last)} | statistics


def to_instructblip(ours: InstructBlip) -> Weights:
    """The inverse of :func:`from_instructblip`, without what ours does not have."""
    return to_hub(ours.state_dict(), ours.decoder.config, INSTRUCTBLIP, ours.encoder.patch_size[1])


QUERIES = QueryTransformerConfig(
    num_queries=32,
    width=768,
    depth=12,
    num_heads=12,
    mlp_dim=3072,
    cross_every=2,
    vocab_size=32_002,
    dropout=0.1,
)
"""BLIP-2's query transformer, with the vocabulary of the language model and two places of visuals."""
EVA_G = ImageTowerConfig(
    width=1408,
    depth=39,
    num_heads=16,
    mlp_ratio=6144 / 1408,
    num_frames=4,
    size=224,
    patch_size=14,
    pool="class",
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
"""EVA-CLIP's ViT-g/14 without its last block."""
VICUNA_7B = DecoderConfig(vocab_size=32_000, width=4096, depth=32, num_heads=32, mlp_dim=11_008, norm_eps=1e-5)


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames, queries = 32, 4, 2
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=64),
            batch_size=16,
        ),
        objective=InstructBlipConfig(
            encoder=ImageTowerConfig(
                width=64,
                depth=2,
                num_heads=4,
                num_frames=frames,
                size=size,
                patch_size=16,
                pool="class",
                linear_init="glorot",
            ),
            connector=QueryConnectorConfig(
                queries=QueryTransformerConfig(
                    num_queries=queries, width=64, depth=2, num_heads=4, mlp_dim=128, vocab_size=128, max_length=64
                ),
                per_frame=True,
            ),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
            trains=("encoder", "connector", "decoder"),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def vicuna_7b() -> Run:
    """EVA-CLIP's ViT-g/14 and Vicuna-7B, 4 frames of a video or an image: 185M weights are trained."""
    frames = 4
    return Run(
        data=Data(
            clip=Clip(num_frames=frames, sampling="uniform", size=224, crop="random_resized"),
            reads=Conversations(format="v1", max_length=512),
            batch_size=128,
            num_workers=8,
        ),
        objective=InstructBlipConfig(
            encoder=EVA_G,
            connector=QueryConnectorConfig(queries=QUERIES, per_frame=True),
            decoder=VICUNA_7B,
        ),
        optim=AdamW(lr=1e-5, weight_decay=0.05, betas=(0.9, 0.999), schedule=Cosine(warmup=Steps(1000), start=0.001)),
        train=Loop(length=Steps(60_000), precision="bfloat16", checkpoint=True, clip_grad=None),
    )
