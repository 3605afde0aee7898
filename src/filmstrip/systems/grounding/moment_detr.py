"""Moment-DETR: a transformer reads a video and a query together, and learned queries decode the moments as a set.

Every clip's features and every word's are tokens of one encoder, whose output also says how much of a highlight each
clip is; each of ten learned queries gives one moment and whether there is one. Lei et al., "QVHighlights: Detecting
Moments and Highlights in Videos via Natural Language Queries", 2021. Its transformer is in
:mod:`filmstrip.models.detr`, its losses are in :mod:`filmstrip.objectives.set_prediction` and
:mod:`filmstrip.objectives.highlights`.

    filmstrip train grounding.moment_detr:qvhighlights --data SLOWFAST --data.reads.more-features CLIP \
        --data.reads.text CLIP_TEXT --data.reads.annotations ANNOTATIONS
    filmstrip eval RUN --protocol grounding
    filmstrip find RUN video.mp4 "a man walks inside"

``--init FILE`` begins with the authors' released weights of the same network.

Presets have the hyper-parameters of the released code. Where we deviate: moments are shares of the annotated duration
in training as in evaluation (there of the number of clips times two seconds); a video that is longer than the longest
is resized, not cut off; the assignment is solved on the device, for the whole batch.

Checked against the released code, by stored outputs: logits, moments, highlights and all losses agree to 2e-5, and so
do moments and scores. The paper reports 52.9 and 33.0% recall of the first moment at overlaps of 0.5 and 0.7, a mAP
of 30.7, and for highlights a mAP of 35.7 and 55.6% hits, on the test set of QVHighlights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from filmstrip.bounds import PositiveShare, Weight
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds.moments import MomentInfo, Moments
from filmstrip.data.synthetic.video_queries import VideoQueries
from filmstrip.evals.grounding import MomentRetrieval
from filmstrip.models.detr import (
    PUBLISHED,
    DetrTransformer,
    Head,
    Projections,
    present_to,
    relative_positions,
    with_endpoints,
)
from filmstrip.objectives.highlights import draw_pairs, ranking_loss
from filmstrip.objectives.set_prediction import (
    Predicted,
    SetPredictionConfig,
    foreground_loss,
    groundings,
    matched_losses,
    targets_of,
)
from filmstrip.protocols import Batch, Grounding, Loss, Objective
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant
from filmstrip.weights.keymap import Rules, Weights, check_names, renamed, without_prefix

NAMES: Rules = (
    *PUBLISHED,
    (r"^foreground\.", "class_embed."),
    (r"^saliency\.", "saliency_proj."),
)
"""Our names to those of the released weights."""
SPARE = (r"txt_position_embed\..*", r"contrastive_align_projection_.*", r"saliency_proj\.bias")
"""Their names of what the released configuration does not use or learn: a bias ranks no clip above another."""


class Seen(NamedTuple):
    """What the network says of a batch."""

    predicted: Predicted
    """Outputs of each layer of the decoder; class 0 is that there is a moment."""
    saliency: Tensor
    """How much of a highlight each clip is, ``B T``."""
    valid: Tensor
    """Where there is video, ``B T`` bool."""


class MomentDetr(Objective):
    """The transformer with its heads; a :class:`~filmstrip.protocols.Grounder`."""

    requires = (
        *("sequence", "length", "query", "query_length", "seconds"),
        *("moments", "query_of", "saliency", "relevant", "seed"),
    )

    def __init__(self, config: MomentDetrConfig) -> None:
        super().__init__()
        self.config = config
        width, projected = config.width, (config.width, config.num_projections, config.input_dropout)
        self.video = Projections(config.feature_width + 2, *projected)
        self.text = Projections(config.text_width, *projected)
        self.queries = nn.Parameter(torch.randn(config.num_queries, width))
        self.transformer = DetrTransformer(config)
        self.spans = Head(width, width, width, 2)
        self.foreground = nn.Linear(width, 2)
        self.saliency = nn.Linear(width, 1, bias=False)

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """Everything decays, as in the released code."""
        return False

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights, from a released state or file.

        Raises:
            UserError: the state is of another network.
        """
        theirs = without_prefix(theirs.get("model", theirs))
        names = {name: renamed(name, NAMES) for name in self.state_dict()}
        check_names("this is not a released Moment-DETR of this size: it", theirs, names.values(), spare=SPARE)
        return {name: theirs[key] for name, key in names.items()}

    def look(self, batch: Batch) -> Seen:
        """Moments and highlights of each video for its query."""
        sequence, length, query = batch["sequence"], batch["length"], batch["query"]
        valid = present_to(length, sequence.shape[1])
        tokens = torch.cat([self.video(with_endpoints(sequence, length)), self.text(query)], dim=1)
        there = torch.cat([valid, present_to(batch["query_length"], query.shape[1])], dim=1)
        places = relative_positions(valid, self.config.width).to(tokens)
        places = torch.cat([places, torch.zeros_like(tokens[:, sequence.shape[1] :])], dim=1)
        states, memory = self.transformer(tokens, places, there, self.queries)
        predicted = Predicted(self.spans(states).float().sigmoid(), self.foreground(states))
        return Seen(predicted, self.saliency(memory[:, : sequence.shape[1]])[..., 0].float(), valid)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Losses of every layer's matched moments, and of pairs of clips of which one is the better highlight."""
        c, seen = self.config, self.look(batch)
        matched = matched_losses(seen.predicted, targets_of(batch), c)
        classes = foreground_loss(seen.predicted.logits, matched.chosen, c.background)
        ranking = ranking_loss(seen.saliency, draw_pairs(batch, seen.valid, rated=c.rated), c.margin)
        total = c.span_weight * matched.span + c.overlap_weight * matched.overlap + c.class_weight * classes
        metrics = {"span": matched.span, "overlap": matched.overlap, "class": classes, "ranking": ranking}
        return Loss(total + c.saliency_weight * ranking, {name: value.detach() for name, value in metrics.items()})

    @torch.no_grad()
    def ground(self, batch: Batch) -> list[list[Grounding]]:
        """The moments of each video, the likeliest first, and its highlights."""
        seen = self.look(batch)
        spans, logits = (output[-1] for output in seen.predicted)
        return groundings(spans, logits.float().softmax(dim=-1)[..., 0], batch, seen.saliency)


@dataclass(frozen=True, kw_only=True)
class MomentDetrConfig(SetPredictionConfig):
    """The transformer and its losses."""

    background: PositiveShare
    """Weight of learned queries that are matched with no moment, in the classification."""
    saliency_weight: Weight
    """Weight of the ranking of highlights."""
    margin: Weight
    """How much higher the better highlight of a pair is to score."""
    rated: bool = True
    """Whether clips are rated; by default from the data."""

    def bind(self, info: DataInfo) -> MomentDetrConfig:
        """Take the widths of the features, and whether clips are rated, from the data."""
        return super().bind(info, rated=info.raters > 0) if isinstance(info, MomentInfo) else self

    def build(self) -> MomentDetr:
        """Build with fresh weights.

        Raises:
            UserError: the widths of the features are unknown.
        """
        self.check_widths()
        return MomentDetr(self)


def tiny() -> Run:
    """A narrow one on generated videos, with stand-ins for features; half a minute on two CPU cores."""
    return Run(
        data=Data(
            synthetic=VideoQueries(num_train=150, num_test=30),
            reads=Moments(max_length=50, max_words=8, max_moments=1, width=16, text_width=16, noise=0.3),
            batch_size=16,
            num_workers=0,
        ),
        objective=MomentDetrConfig(
            width=48,
            num_heads=4,
            hidden=96,
            encoder_depth=2,
            decoder_depth=2,
            num_queries=6,
            span_weight=10.0,
            overlap_weight=1.0,
            class_weight=4.0,
            background=0.1,
            saliency_weight=1.0,
            margin=0.2,
        ),
        optim=AdamW(lr=3e-3, weight_decay=1e-4),
        train=Loop(length=Steps(400)),
        evals=(MomentRetrieval(),),
    )


def qvhighlights() -> Run:
    """QVHighlights, on features of SlowFast and CLIP every two seconds, and words of CLIP: 200 epochs."""
    return Run(
        data=Data(reads=Moments(dataset="qvhighlights"), batch_size=32, eval_split="val"),
        objective=MomentDetrConfig(
            feature_width=2816,
            text_width=512,
            width=256,
            num_heads=8,
            hidden=1024,
            encoder_depth=2,
            decoder_depth=2,
            num_queries=10,
            input_dropout=0.5,
            dropout=0.1,
            span_weight=10.0,
            overlap_weight=1.0,
            class_weight=4.0,
            background=0.1,
            saliency_weight=1.0,
            margin=0.2,
        ),
        optim=AdamW(lr=1e-4, weight_decay=1e-4, schedule=Constant()),
        train=Loop(length=Epochs(200), clip_grad=0.1),
        evals=(MomentRetrieval(round_to=2.0),),
    )
