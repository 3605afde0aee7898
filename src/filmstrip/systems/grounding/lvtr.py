"""LVTR (Explore-And-Match): all sentences about a video are grounded at once, as a set of moments.

The features of the video and one vector for each sentence are tokens of one encoder; learned queries (proposals)
decode moments, and their similarity to the encoded sentences says which one each belongs to. Moments are free to
explore: the best fitting one of a sentence is drawn to its target. A set guidance loss gives every proposal a
sentence from the start, each an equal share of them. Woo et al., "Explore-And-Match: Bridging Proposal-Based and
Proposal-Free With Transformer for Sentence Grounding in Videos", 2022. Its transformer is in
:mod:`filmstrip.models.detr`, its matching in :mod:`filmstrip.objectives.set_prediction`.

    filmstrip train grounding.lvtr:activitynet_captions --data FEATURES --data.reads.annotations ANNOTATIONS \
        --data.reads.text SENTENCES
    filmstrip eval RUN --protocol grounding
    filmstrip find RUN video.mp4 "she opens the door" "she sits down"

Presets have the hyper-parameters of the released code. ``similarity``: its ``cos`` divides each channel of the
proposals by its norm over the *proposals*, which the presets do too; ``cosine`` divides by the norm over channels.

Where we deviate: the similarity to sentences that are padding is not learned from; the released code sorts sentences
by the true times of their moments in evaluation too, and so do the presets (``in_order``), but for ``tiny``; there,
sentences that no proposal chose are left out of the figures, here the likeliest proposals answer them after those
that chose them; the learning rate falls by half a cosine, there to a tenth every 50 of 200 epochs.

Checked against the released code, by stored outputs: similarities, moments and all losses agree to 2e-5. The text
that this follows gives no figures but "faster than previous baselines (by 2X or more)".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.data.config import Data
from filmstrip.data.kinds.moments import Moments
from filmstrip.data.synthetic.video_queries import VideoQueries
from filmstrip.evals.grounding import MomentRetrieval
from filmstrip.models.detr import PUBLISHED, DetrTransformer, Head, Projections, present_to, relative_positions
from filmstrip.objectives.set_prediction import (
    Predicted,
    SetPredictionConfig,
    matched_losses,
    segments_of,
    targets_of,
)
from filmstrip.protocols import Batch, Grounding, Loss, Objective
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights, check_names, renamed, without_prefix

SPARE = (r"class_head\..*", r"backbone\..*")
"""Names in released weights of what the released configuration does not use."""


class Lvtr(Objective):
    """The transformer with its moments; a :class:`~filmstrip.protocols.Grounder`."""

    requires = ("sequence", "length", "query", "query_length", "seconds", "moments", "query_of")

    def __init__(self, config: LvtrConfig) -> None:
        super().__init__()
        self.config = config
        width, projected = config.width, (config.width, config.num_projections, config.input_dropout)
        self.video = Projections(config.feature_width, *projected)
        self.text = Projections(config.text_width, *projected)
        self.queries = nn.Parameter(torch.randn(config.num_queries, width))
        self.transformer = DetrTransformer(config)
        self.spans = Head(width, width, width, 2)

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """Everything decays, as in the released code."""
        return False

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights, from a released state or file.

        Raises:
            UserError: the state is of another network.
        """
        theirs = without_prefix(without_prefix(theirs.get("model", theirs)), "head.")
        names = {name: renamed(name, PUBLISHED) for name in self.state_dict()}
        check_names("this is not a released LVTR of this size: it", theirs, names.values(), spare=SPARE)
        return {name: theirs[key] for name, key in names.items()}

    def look(self, batch: Batch) -> Predicted:
        """Moments of every layer, and their similarities to the sentences; to padding it is minus infinity."""
        sequence, query = batch["sequence"], batch["query"]
        valid = present_to(batch["length"], sequence.shape[1])
        asked = present_to(batch["query_length"], query.shape[1])
        tokens = torch.cat([self.video(sequence), self.text(query)], dim=1)
        places = [relative_positions(there, self.config.width) for there in (valid, asked)]
        states, memory = self.transformer(
            tokens, torch.cat(places, dim=1).to(tokens), torch.cat([valid, asked], dim=1), self.queries
        )
        sentences = memory[:, sequence.shape[1] :].float()
        similar = self._similarity(states.float(), sentences).masked_fill(~asked[:, None], float("-inf"))
        return Predicted(self.spans(states).float().sigmoid(), similar)

    def _similarity(self, states: Tensor, sentences: Tensor) -> Tensor:
        """Similarity ``layers B Q L`` of proposals ``layers B Q D`` to sentences ``B L D``."""
        if self.config.similarity != "dot":
            sentences = F.normalize(sentences, dim=-1)
            states = F.normalize(states, dim=-1 if self.config.similarity == "cosine" else -2)
        return states @ sentences.transpose(1, 2)

    def guided(self, count: Tensor) -> Tensor:
        """The sentence of each proposal, ``B Q``, where there are ``count`` (``B``): equal shares, in order."""
        share = (self.config.num_queries + count - 1) // count
        return torch.arange(self.config.num_queries, device=count.device) // share[:, None]

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Losses of every layer's matched moments, and the set guidance of all proposals."""
        c, predicted = self.config, self.look(batch)
        matched = matched_losses(predicted, targets_of(batch, of_queries=True), c)
        share = self.guided(batch["query_length"])
        entropy = F.cross_entropy(
            predicted.logits.movedim(-1, 1), share.expand(predicted.logits.shape[:3]), reduction="none"
        )
        guidance = entropy.mean() * predicted.logits.shape[0]
        total = c.span_weight * matched.span + c.overlap_weight * matched.overlap + c.class_weight * guidance
        metrics = {"span": matched.span, "overlap": matched.overlap, "guidance": guidance}
        return Loss(total, {name: value.detach() for name, value in metrics.items()})

    @torch.no_grad()
    def ground(self, batch: Batch) -> list[list[Grounding]]:
        """The moments of each sentence of each video: first those of which it is the likeliest sentence."""
        spans, similar = (output[-1].cpu() for output in self.look(batch))
        chances, found = similar.softmax(dim=-1), []
        for i, count in enumerate(batch["query_length"].tolist()):
            segments, answers = segments_of(spans[i], batch["seconds"][i]), []
            for j in range(count):
                chance = chances[i, :, j]
                best = (chance + (chances[i].argmax(dim=-1) == j)).argsort(descending=True, stable=True)
                answers.append(Grounding(segments[best], chance[best]))
            found.append(answers)
        return found


@dataclass(frozen=True, kw_only=True)
class LvtrConfig(SetPredictionConfig):
    """The transformer and its losses; ``class_weight`` is that of the set guidance."""

    similarity: Literal["cosine", "over_queries", "dot"] = "cosine"
    """Similarity of a proposal to a sentence: of unit vectors; the released code's, whose proposals have channels of
    unit length over all learned queries; or their product."""

    def build(self) -> Lvtr:
        """Build with fresh weights.

        Raises:
            UserError: the widths of the features are unknown.
        """
        self.check_widths()
        return Lvtr(self)


def tiny() -> Run:
    """A narrow one on generated videos, with stand-ins for features; half a minute on two CPU cores."""
    return Run(
        data=Data(
            synthetic=VideoQueries(num_train=150, num_test=30),
            reads=Moments(by="video", max_length=50, width=16, text_width=16, noise=0.3),
            batch_size=16,
            num_workers=0,
        ),
        objective=LvtrConfig(
            width=48,
            num_heads=4,
            hidden=96,
            encoder_depth=2,
            decoder_depth=2,
            num_queries=16,
            span_weight=1.0,
            overlap_weight=3.0,
            class_weight=2.0,
            similarity="dot",
        ),
        optim=AdamW(lr=3e-3, weight_decay=1e-4),
        train=Loop(length=Steps(400)),
        evals=(MomentRetrieval(),),
    )


def _of_depth(depth: int, dataset: Literal["activitynet_captions", "charades_sta"]) -> Run:
    """The released configuration: 64 frames of CLIP (ViT-B/32) of each video, at most 4 sentences, 40 proposals."""
    return Run(
        data=Data(
            reads=Moments(dataset=dataset, by="video", max_length=64, resized=True, in_order=True),
            batch_size=16,
        ),
        objective=LvtrConfig(
            feature_width=512,
            text_width=512,
            width=256,
            num_heads=8,
            hidden=1024,
            encoder_depth=depth,
            decoder_depth=depth,
            num_queries=40,
            input_dropout=0.5,
            dropout=0.1,
            span_weight=1.0,
            overlap_weight=3.0,
            class_weight=2.0,
            similarity="over_queries",
        ),
        optim=AdamW(lr=1e-4, weight_decay=1e-4, schedule=Cosine(warmup=0.0)),
        train=Loop(length=Epochs(200), clip_grad=None),
        evals=(MomentRetrieval(thresholds=(0.1, 0.3, 0.5, 0.7)),),
    )


def activitynet_captions() -> Run:
    """ActivityNet Captions, four layers of encoder and decoder (large): 200 epochs of 16 videos a step."""
    return _of_depth(4, "activitynet_captions")


def activitynet_captions_base() -> Run:
    """The same with two layers."""
    return _of_depth(2, "activitynet_captions")


def activitynet_captions_huge() -> Run:
    """The same with six layers."""
    return _of_depth(6, "activitynet_captions")


def charades_sta() -> Run:
    """Charades-STA, four layers."""
    return _of_depth(4, "charades_sta")
