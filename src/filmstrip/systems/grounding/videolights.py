"""VideoLights: moments and highlights of a video for a query, by one network in which each task helps the other.

The video's features are refined by the query (how similar each clip is to the sentence), fused with its words in both
directions, and encoded; learned queries start from anchors (centre and length) and move them layer by layer. What the
likeliest moment looks like scores highlights once more, and is taught the same ratings. Paul et al., "VideoLights:
Feature Refinement and Cross-Task Alignment Transformer for Joint Video Highlight Detection and Moment Retrieval",
2024. Its encoder layers are in :mod:`filmstrip.models.detr`, matching and ranking in :mod:`filmstrip.objectives`; the
decoder is DAB-DETR's (Liu et al. 2022).

    filmstrip train grounding.videolights:qvhighlights --data SLOWFAST --data.reads.more-features CLIP BLIP \
        --data.reads.text CLIP_TEXT BLIP_TEXT --data.reads.annotations ANNOTATIONS
    filmstrip eval RUN --protocol grounding
    filmstrip find RUN video.mp4 "a man walks inside"

``--init FILE`` begins with the authors' released weights of the same network, or with those after pretraining.

Presets have the hyper-parameters of the released code, which we follow where the paper says otherwise or nothing: the
"convolutional projection" is a linear layer; the correlation of words and clips in the refinement is the same for
every word and so, as its softmax sums to one, one vector for all clips; the feed-forward network of the fusion has no
residual; its words go on as they came. Three losses are sums over a batch, of 32 in the presets: they weigh less in a
smaller one. What the losses of hard positives and negatives add is the squared error of all clips.

Where we deviate: padding of words and clips counts in no mean and no loss, and masks of padding are each row's own
(there they are mixed up among heads and rows); the likeliest moment is cut off at the video's ends (there, one that
begins before it may be empty); the self-attention of the decoder's first layer, in which all values are equal, is
that value; the weight of the hard losses grows every ``growth_steps`` steps, there every epoch; moments are shares of
the annotated duration; a longer video is resized, not cut off; the blend of pretraining on captions by BLIP-2 is not
here (train on such queries, then ``--init``).

Checked against the released code, by stored outputs: refined features, logits, moments, all three scores of
highlights and all losses agree to 2e-5. The released checkpoints' figures on QVHighlights' test set, with BLIP-2's
features: 68.29 and 52.79% recall of the first moment at overlaps of 0.5 and 0.7, a mAP of 46.53, for highlights 42.43
and 68.94% hits.

Measured here (``filmstrip claims videolights_feedback``, generated videos, 200 steps, mean of three seeds): 73.9%
recall of the first moment at an overlap of 0.5 and 69.5% hits, Moment-DETR's 13.7 and 53.7%.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, PositiveShare, Rate, Weight
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds.moments import MomentInfo, Moments
from filmstrip.data.synthetic.video_queries import VideoQueries
from filmstrip.evals.grounding import MomentRetrieval
from filmstrip.models.detr import (
    PUBLISHED,
    DetrAttention,
    EncoderLayer,
    Head,
    Projections,
    present_to,
    relative_positions,
    spread,
    with_endpoints,
)
from filmstrip.nn.attention import attend
from filmstrip.nn.positions import sincos
from filmstrip.nn.segments import start_and_end
from filmstrip.objectives.highlights import draw_pairs, ranking_loss
from filmstrip.objectives.set_prediction import (
    Matched,
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
from filmstrip.weights.keymap import Rules, Weights, check_names, fitted, renamed, without_prefix

LEVELS, PARTS = 11, 12
"""Sums of ratings, from one on, that are contrasted with lower ones; and what their losses are divided by."""
CONTRAST = 0.5
"""Temperature of that contrast."""
NAMES: Rules = (
    (r"^(video|text)\.(\d)\.linear\.", r"\1.\2.linear.conv1d."),
    (r"^refinement\.mixer\.", "feature_refinement.mixer.conv1d."),
    (r"^refinement\.pool$", "feature_refinement.word_to_sentence_pool.weight"),
    (r"^refinement\.similar$", "feature_refinement.sim_w"),
    (r"^refinement\.clips$", "feature_refinement.cor_v_w"),
    (r"^refinement\.words$", "feature_refinement.cor_q_w"),
    (r"\.(cross_attn_\d)\.inputs\.", r".\1.in_proj_"),
    (r"\.(cross_attn_\d)\.out\.", r".\1.out_proj."),
    (r"^fusion\.(\d)\.", r"transformer.t2v_encoder.layers.\1."),
    (r"^encoder\.(\d)\.", r"transformer.encoder.layers.\1."),
    (r"^decoder\.layers\.(\d)\.value_bias$", r"transformer.decoder.layers.\1.sa_v_proj.bias"),
    (r"^decoder\.layers\.(\d)\.cross_out\.", r"transformer.decoder.layers.\1.cross_attn.out_proj."),
    (r"^decoder\.layers\.(\d)\.self_out\.", r"transformer.decoder.layers.\1.self_attn.out_proj."),
    (r"^decoder\.", "transformer.decoder."),
    (r"^foreground\.", "class_embed."),
    (r"^clip_scores\.", "saliency_proj1."),
    (r"^global_scores\.", "saliency_proj2."),
    (r"^moment_scores\.", "saliency_proj_mr."),
    (r"^moment\.", "gru_extractor.gru."),
    (r"^align_(queries|text)\.", r"contrastive_align_projection_\1."),
    (r"projection_queries\.", "projection_query."),
    (r"projection_text\.", "projection_txt."),
    (r"^anchors$", "query_embed.weight"),
    (r"^token$", "global_rep_token"),
    (r"^token_position$", "global_rep_pos"),
    *PUBLISHED,
)
"""Our names to those of the released weights."""
SPARE = (
    r"txt_position_embed\..*",
    r"contrastive_align_projection_vid\..*",
    r"saliency_proj_mr\.bias",
    r"transformer\.t2v_encoder\.layers\.\d\.norm2\..*",
    r"transformer\.decoder\.layers\.0\.(?:sa_[qk].*|sa_v_proj\.weight)",
)
"""Their names of what no output depends on, or no loss."""


class Refinement(nn.Module):
    """Clips with how similar they are to the sentence, the sentence, and a learned vector: ``B T D -> B T D``."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.similar = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, 1)))
        self.clips = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, width)))
        self.words = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1)))
        self.pool = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, 1)))
        self.mixer = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, video: Tensor, text: Tensor, asked: Tensor) -> Tensor:
        """Refine clips by words ``B L D``, of which those that were ``asked`` (``B L``) count."""
        weights = (text @ self.pool).masked_fill(~asked[..., None], float("-inf")).softmax(dim=1)
        sentence = (weights * text).sum(dim=1, keepdim=True)
        similar = F.cosine_similarity(video, sentence, dim=-1)[..., None] * self.similar[:, 0]
        every = torch.ones_like(video)
        parts = (video, similar, sentence * every, self.words * self.clips * every)
        return self.dropout(self.mixer(torch.cat([self.dropout(part) for part in parts], dim=-1)).relu())


class Fusion(nn.Module):
    """Clips attend to words, words to clips, and the clips to what the words have become."""

    def __init__(self, config: VideoLightsConfig) -> None:
        super().__init__()
        width = config.width
        self.cross_attn_1, self.cross_attn_2, self.cross_attn_3 = (
            DetrAttention(width, config.num_heads, config.dropout) for _ in range(3)
        )
        self.linear1, self.linear2, self.linear3 = (nn.Linear(width, width) for _ in range(3))
        self.linear4, self.linear5 = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)
        self.norm1, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(3))
        self.activation = nn.PReLU()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, video: Tensor, text: Tensor, positions: Tensor, valid: Tensor, asked: Tensor) -> Tensor:
        """``B T D -> B T D``, with words ``B L D``; ``positions`` are those of the clips."""
        placed = video + positions
        fused = self.norm1(video + self.linear1(self.dropout(self.cross_attn_1(placed, text, text, asked))))
        words = text + self.linear2(self.dropout(self.cross_attn_2(text, placed, video, valid)))
        fused = self.norm3(fused + self.linear3(self.dropout(self.cross_attn_3(fused, words, words, asked))))
        fused = self.linear5(self.dropout(self.activation(self.linear4(fused))))
        return self.norm4(fused + self.dropout(fused))


class AnchorLayer(nn.Module):
    """A decoder layer whose attention to clips compares contents, and beside them positions: ``B Q D -> B Q D``."""

    def __init__(self, config: VideoLightsConfig, first: bool) -> None:
        super().__init__()
        width = config.width
        self.num_heads, self.rate = config.num_heads, config.dropout
        self.first = first
        if first:
            self.value_bias = nn.Parameter(torch.zeros(width))
        else:
            self.sa_qcontent_proj, self.sa_qpos_proj = nn.Linear(width, width), nn.Linear(width, width)
            self.sa_kcontent_proj, self.sa_kpos_proj = nn.Linear(width, width), nn.Linear(width, width)
            self.sa_v_proj = nn.Linear(width, width)
        self.self_out = nn.Linear(width, width)
        self.ca_qcontent_proj, self.ca_qpos_sine_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.ca_kcontent_proj, self.ca_kpos_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.ca_qpos_proj = nn.Linear(width, width) if first else None
        self.ca_v_proj = nn.Linear(width, width)
        self.cross_out = nn.Linear(width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)
        self.activation = nn.PReLU()
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, places: Tensor, sines: Tensor, memory: Tensor, positions: Tensor, valid: Tensor
    ) -> Tensor:
        """Apply the layer to queries at ``places``, with ``sines`` of their anchors (both as ``x``)."""
        x = self.norm1(x + self.dropout(self.self_out(self._to_each_other(x, places))))
        q, k, k_place = self.ca_qcontent_proj(x), self.ca_kcontent_proj(memory), self.ca_kpos_proj(positions)
        if self.ca_qpos_proj is not None:
            q, k = q + self.ca_qpos_proj(places), k + k_place
        q = torch.cat([self._heads(q), self._heads(self.ca_qpos_sine_proj(sines))], dim=-1)
        k = torch.cat([self._heads(k), self._heads(k_place)], dim=-1)
        attended = self._attend(q, k, self._heads(self.ca_v_proj(memory)), valid[:, None, None])
        x = self.norm2(x + self.dropout(self.cross_out(attended)))
        return self.norm3(x + self.dropout(self.fc2(self.dropout(self.activation(self.fc1(x))))))

    def _to_each_other(self, x: Tensor, places: Tensor) -> Tensor:
        if self.first:  # of zeros: all values are the bias, wherever attention lies
            return self.value_bias.expand_as(x)
        q = self.sa_qcontent_proj(x) + self.sa_qpos_proj(places)
        k = self.sa_kcontent_proj(x) + self.sa_kpos_proj(places)
        every = torch.ones(1, 1, 1, x.shape[1], dtype=torch.bool, device=x.device)
        return self._attend(self._heads(q), self._heads(k), self._heads(self.sa_v_proj(x)), every)

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.num_heads)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        found = attend(q, k, v, allowed=allowed, dropout=self.rate if self.training else 0.0)
        return rearrange(found, "b h n d -> b n (h d)")


class AnchorDecoder(nn.Module):
    """Learned queries whose anchors, centre and length of a moment, are moved by every layer."""

    def __init__(self, config: VideoLightsConfig) -> None:
        super().__init__()
        width = config.width
        self.layers = nn.ModuleList(AnchorLayer(config, i == 0) for i in range(config.decoder_depth))
        self.norm = nn.LayerNorm(width)
        self.query_scale = Head(width, width, width)
        self.ref_point_head = Head(width, width, width)
        self.ref_anchor_head = Head(width, width, 1)
        self.bbox_embed = Head(width, width, width, 2)

    def forward(self, anchors: Tensor, memory: Tensor, positions: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """States after each layer, ``layers B Q D``, and the anchors before it, ``layers B Q 2``, from ``Q 2``."""
        anchor = anchors.sigmoid().expand(memory.shape[0], -1, -1)
        x = memory.new_zeros(*anchor.shape[:2], memory.shape[2])
        states, before = [], []
        for i, layer in enumerate(self.layers):
            before.append(anchor)
            anchor = anchor.detach() if i else anchor
            sines = _sines(anchor, memory.shape[2]).to(x)
            places = self.ref_point_head(sines)
            if i:
                sines = sines * self.query_scale(x)
            sines = sines * (self.ref_anchor_head(x).sigmoid() / anchor[..., 1:])
            x = layer(x, places, sines, memory, positions, valid)
            states.append(self.norm(x))
            anchor = (self.bbox_embed(x) + _logit(anchor)).sigmoid()
        return torch.stack(states), torch.stack(before)


def _sines(anchors: Tensor, width: int) -> Tensor:
    """Sines and cosines of centres, then of lengths, ``... 2 -> ... width``; one is a full turn."""
    return torch.cat([sincos(part * 2 * math.pi, width // 2) for part in anchors.unbind(-1)], dim=-1)


def _logit(share: Tensor, least: float = 1e-3) -> Tensor:
    """The inverse of a sigmoid, of shares that are nearer to 0 and 1 than ``least`` as of those."""
    return (share.clamp(min=least) / (1 - share).clamp(min=least)).log()


class Encoded(NamedTuple):
    """A video encoded for a query: clips ``B T D``, a token for the whole, ``B D``, and the clips' positions."""

    clips: Tensor
    whole: Tensor
    positions: Tensor


class Seen(NamedTuple):
    """What the network says of a batch."""

    predicted: Predicted
    """Predictions of each layer of the decoder; class 0 is that there is a moment."""
    states: Tensor
    """States of the learned queries, ``layers B Q D``."""
    saliency: Tensor
    """How much of a highlight each clip is, ``B T``."""
    by_moment: Tensor
    """The same by what the likeliest moment looks like, ``B T``."""
    refined: Tensor
    """Refined clips, ``B T D``."""
    text: Tensor
    """Projected words, ``B L D``."""
    valid: Tensor
    """Where there is video, ``B T`` bool."""
    asked: Tensor
    """Where there are words, ``B L`` bool."""


class VideoLights(Objective):
    """The network with its heads; a :class:`~filmstrip.protocols.Grounder`."""

    requires = (
        *("sequence", "length", "query", "query_length", "seconds"),
        *("moments", "query_of", "saliency", "relevant", "seed"),
    )

    def __init__(self, config: VideoLightsConfig) -> None:
        super().__init__()
        self.config = config
        width, projected = config.width, (config.width, config.num_projections, config.input_dropout)
        self.video = Projections(config.feature_width + 2, *projected)
        self.text = Projections(config.text_width, *projected)
        self.refinement = Refinement(width, config.dropout)
        self.token, self.token_position = (nn.Parameter(torch.randn(width)) for _ in range(2))
        self.fusion = nn.ModuleList(Fusion(config) for _ in range(config.fusion_depth))
        self.encoder = nn.ModuleList(EncoderLayer(config, nn.PReLU()) for _ in range(config.encoder_depth))
        self.decoder = AnchorDecoder(config)
        for part in (self.fusion, self.encoder, self.decoder):
            spread(part)
        nn.init.zeros_(self.decoder.bbox_embed.layers[-1].bias)
        self.anchors = nn.Parameter(torch.randn(config.num_queries, 2))
        self.spans = Head(width, width, width, 2)
        self.foreground = nn.Linear(width, 2)
        self.clip_scores, self.global_scores = nn.Linear(width, width), nn.Linear(width, width)
        self.moment_scores = nn.Linear(width, width, bias=False)
        self.moment = nn.GRU(width, width, batch_first=True)
        self.align_queries, self.align_text = (nn.Linear(width, config.align_width) for _ in range(2))
        self.register_buffer("growth", torch.ones(()))

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """Everything decays, as in the released code."""
        return False

    def after_step(self, step: int) -> None:
        """The hard losses' weight is as many times its first as parts of ``growth_steps`` steps have begun."""
        self.growth.fill_(1 + step // self.config.growth_steps)

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights but the growth of one loss, from a released state or file.

        Raises:
            UserError: the state is of another network.
        """
        theirs = without_prefix(theirs.get("model", theirs))
        ours = {name: value for name, value in self.state_dict().items() if name != "growth"}
        names = {name: renamed(name, NAMES) for name in ours}
        check_names("this is not a released VideoLights of this size: it", theirs, names.values(), spare=SPARE)
        # Linear layers are convolutions of one position there.
        return {name: fitted(theirs[key], ours[name]) for name, key in names.items()} | {"growth": self.growth}

    def encode(self, refined: Tensor, text: Tensor, valid: Tensor, asked: Tensor) -> Encoded:
        """Refined clips fused with words, and encoded together with a token for the whole video."""
        places = relative_positions(valid, self.config.width).to(refined)
        for layer in self.fusion:
            refined = layer(refined, text, places, valid, asked)
        rows = refined.shape[0]
        x = torch.cat([self.token.expand(rows, 1, -1), refined], dim=1)
        positions = torch.cat([self.token_position.expand(rows, 1, -1), places], dim=1)
        for layer in self.encoder:
            x = layer(x, positions, F.pad(valid, (1, 0), value=True))
        return Encoded(x[:, 1:], x[:, 0], places)

    def saliency(self, encoded: Encoded) -> Tensor:
        """How much of a highlight each clip is, ``B T``."""
        products = self.clip_scores(encoded.clips) * self.global_scores(encoded.whole)[:, None]
        return products.float().sum(dim=-1) / self.config.width**0.5

    def look(self, batch: Batch) -> Seen:
        """Moments and highlights of each video for its query."""
        sequence, length = batch["sequence"], batch["length"]
        valid, asked = (
            present_to(length, sequence.shape[1]),
            present_to(batch["query_length"], batch["query"].shape[1]),
        )
        video, text = self.video(with_endpoints(sequence, length)), self.text(batch["query"])
        refined = self.refinement(video, text, asked)
        encoded = self.encode(refined, text, valid, asked)
        states, anchors = self.decoder(self.anchors, encoded.clips, encoded.positions, valid)
        spans = (self.spans(states) + _logit(anchors)).float().sigmoid()
        predicted = Predicted(spans, self.foreground(states))
        by_moment = self._by_moment(predicted, video, encoded.clips, length)
        return Seen(predicted, states, self.saliency(encoded), by_moment, refined, text, valid, asked)

    def _by_moment(self, predicted: Predicted, video: Tensor, clips: Tensor, length: Tensor) -> Tensor:
        """Scores of highlights by the similarity of each clip to the likeliest moment, ``B T``."""
        spans, logits = (output[-1] for output in predicted)
        best = logits.softmax(dim=-1)[..., 0].argmax(dim=1)
        moment = spans.gather(1, best[:, None, None].expand(-1, 1, 2))[:, 0]
        ends = (start_and_end(moment).clamp(0.0, 1.0) * length[:, None]).floor().long()
        last = torch.minimum(ends[:, 1], length - 1)
        place = ends[:, :1] + torch.arange(video.shape[1], device=video.device)
        inside = (place <= last[:, None])[..., None]
        cut = video.gather(1, place.clamp(max=video.shape[1] - 1)[..., None].expand_as(video)) * inside
        _, state = self.moment(cut)
        similar = video @ state[-1][..., None]
        return self.moment_scores(clips * (1 + similar)).float().sum(dim=-1) / self.config.width**0.5

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Losses of matched moments, of highlights, and of the alignment of video and text."""
        c, seen = self.config, self.look(batch)
        # The next row's words are about another video, as a rule.
        other = self.encode(seen.refined, seen.text.roll(-1, dims=0), seen.valid, seen.asked.roll(-1, dims=0))
        matched = matched_losses(seen.predicted, targets_of(batch), c)
        classes = foreground_loss(seen.predicted.logits, matched.chosen, c.background)
        highlights = self._highlights(batch, seen, self.saliency(other))
        align = self._alignment(batch, seen, matched)
        total = c.span_weight * matched.span + c.overlap_weight * matched.overlap + c.class_weight * classes
        total = total + c.saliency_weight * highlights + c.align_weight * align
        metrics = {"span": matched.span, "overlap": matched.overlap, "class": classes, "highlights": highlights}
        return Loss(total, {name: value.detach() for name, value in {**metrics, "align": align}.items()})

    def _highlights(self, batch: Batch, seen: Seen, other: Tensor) -> Tensor:
        """What clips are to score: pairs, all levels of ratings, another's words, and the ratings' own shape."""
        c, valid = self.config, seen.valid
        ranking = ranking_loss(seen.saliency, draw_pairs(batch, valid, rated=c.rated), c.margin)
        ratings = batch["saliency"].sum(dim=-1)
        apart = level_contrast(seen.saliency, other, ratings, valid) + (F.softplus(other) * valid).sum(dim=1).mean()
        similar = _differences(seen.saliency, ratings, valid)
        by_moment = _differences(seen.by_moment, ratings, valid)
        hard = (_shape(seen.saliency, valid) - F.normalize(ratings, dim=1)).square().mean()
        shapes = c.shape_weight * similar + c.feedback_weight * by_moment
        return ranking + apart + shapes + c.hard_weight * self.growth * hard

    def _alignment(self, batch: Batch, seen: Seen, matched: Matched) -> Tensor:
        """Matched queries are to be more similar to the words than others are, and rated clips to the sentence."""
        queries = F.normalize(self.align_queries(seen.states).float(), dim=-1)
        text = F.normalize(self.align_text(seen.text).float(), dim=-1) * seen.asked[..., None]
        similar = queries @ text.sum(dim=1)[:, :, None] / self.config.temperature
        similar, count = similar[..., 0], matched.chosen.sum(dim=-1)
        positive = (similar * matched.chosen).sum(dim=-1) / count.clamp(min=1)
        contrast = ((similar.logsumexp(dim=-1) - positive) * (count > 0)).mean(dim=1).sum()
        sentence = (seen.text * seen.asked[..., None]).sum(dim=1) / seen.asked.sum(dim=1, keepdim=True)
        clips = F.cosine_similarity(sentence[:, None].float(), seen.refined.float(), dim=-1)
        return contrast + _differences(clips, batch["saliency"].sum(dim=-1), seen.valid)

    @torch.no_grad()
    def ground(self, batch: Batch) -> list[list[Grounding]]:
        """The moments of each video, the likeliest first, and its highlights."""
        seen = self.look(batch)
        spans, logits = (output[-1] for output in seen.predicted)
        return groundings(spans, logits.float().softmax(dim=-1)[..., 0], batch, seen.saliency)


def level_contrast(scores: Tensor, other: Tensor, ratings: Tensor, valid: Tensor) -> Tensor:
    """Contrast of clips whose ratings sum to a level or more with all others, for each level (Moon et al. 2023).

    ``scores``, ``ratings`` and ``valid`` are ``B T``; ``other`` are the scores for another video's words.
    """
    both = torch.cat([valid, valid], dim=1)
    logits = torch.cat([scores, other], dim=1).masked_fill(~both, -1e3) / CONTRAST
    logits = logits - logits.amax(dim=1, keepdim=True)
    chance = (logits - (logits.exp().sum(dim=1, keepdim=True) + 1e-6).log()) * both
    levels = torch.arange(1, LEVELS + 1, device=scores.device)
    good = F.pad(ratings, (0, ratings.shape[1]))[..., None] >= levels
    mean = (chance[..., None] * good).sum(dim=1) / (good.sum(dim=1) + 1e-6)
    return -mean.mean(dim=0).sum() / PARTS


def _shape(scores: Tensor, valid: Tensor) -> Tensor:
    """Scores ``B T`` above the least of the batch, each row of unit length; zero where there is no video."""
    least = scores.masked_fill(~valid, float("inf")).amin()
    return F.normalize((scores - least) * valid, dim=1)


def _differences(scores: Tensor, ratings: Tensor, valid: Tensor) -> Tensor:
    """One less the cosine of each row's scores and its ratings, summed over rows."""
    return (1 - F.cosine_similarity(_shape(scores, valid), F.normalize(ratings, dim=1))).sum()


@dataclass(frozen=True, kw_only=True)
class VideoLightsConfig(SetPredictionConfig):
    """The network and its losses."""

    fusion_depth: Count
    """Number of layers that fuse clips and words."""
    align_width: Count
    """Channels in which learned queries and words are compared."""
    background: PositiveShare
    """Weight of learned queries that are matched with no moment, in the classification."""
    saliency_weight: Weight
    """Weight of all losses of highlights."""
    margin: Weight
    """How much higher the better highlight of a pair is to score."""
    shape_weight: Weight = 1.0
    """Weight of the cosine of scores and ratings."""
    feedback_weight: Weight = 1.0
    """Weight of the same for scores by the likeliest moment, which ties the tasks together."""
    hard_weight: Weight = 10.0
    """First weight of the squared error of scores, which makes up for hard clips."""
    growth_steps: Count
    """Number of steps after which that weight grows by its first value."""
    align_weight: Weight
    """Weight of the alignment of video and text."""
    temperature: Rate = 0.07
    """Temperature of the similarity of learned queries and words."""
    rated: bool = True
    """Whether clips are rated; by default from the data."""

    def bind(self, info: DataInfo) -> VideoLightsConfig:
        """Take the widths of the features, and whether clips are rated, from the data."""
        return super().bind(info, rated=info.raters > 0) if isinstance(info, MomentInfo) else self

    def build(self) -> VideoLights:
        """Build with fresh weights.

        Raises:
            UserError: the widths of the features are unknown.
        """
        self.check_widths()
        return VideoLights(self)


def tiny() -> Run:
    """A narrow one on generated videos, with stand-ins for features; a minute on two CPU cores."""
    return Run(
        data=Data(
            synthetic=VideoQueries(num_train=150, num_test=30),
            reads=Moments(max_length=50, max_words=8, max_moments=1, width=16, text_width=16, noise=0.3),
            batch_size=16,
            num_workers=0,
        ),
        objective=VideoLightsConfig(
            width=48,
            num_heads=4,
            hidden=96,
            fusion_depth=1,
            encoder_depth=1,
            decoder_depth=2,
            num_queries=6,
            align_width=16,
            span_weight=10.0,
            overlap_weight=1.0,
            class_weight=4.0,
            background=0.1,
            saliency_weight=1.0,
            margin=0.2,
            growth_steps=100,
            align_weight=0.2,
        ),
        optim=AdamW(lr=3e-3, weight_decay=1e-4),
        train=Loop(length=Steps(400)),
        evals=(MomentRetrieval(),),
    )


def _released(
    reads: Moments, network: VideoLightsConfig, epochs: int, eval_split: str, evals: MomentRetrieval
) -> Run:
    return Run(
        data=Data(reads=reads, batch_size=32, eval_split=eval_split),
        objective=network,
        optim=AdamW(lr=1e-4, weight_decay=1e-4, schedule=Constant()),
        train=Loop(length=Epochs(epochs), clip_grad=0.1),
        evals=(evals,),
    )


def _network(feature_width: int, text_width: int, *, align_weight: float, growth_steps: int) -> VideoLightsConfig:
    return VideoLightsConfig(
        feature_width=feature_width,
        text_width=text_width,
        width=256,
        num_heads=8,
        hidden=1024,
        fusion_depth=1,
        encoder_depth=3,
        decoder_depth=3,
        num_queries=10,
        align_width=64,
        input_dropout=0.5,
        dropout=0.1,
        span_weight=10.0,
        overlap_weight=1.0,
        class_weight=4.0,
        background=0.1,
        saliency_weight=1.0,
        margin=0.2,
        growth_steps=growth_steps,
        align_weight=align_weight,
    )


def qvhighlights() -> Run:
    """QVHighlights: SlowFast's, CLIP's and BLIP-2's features of videos, the latter two's of words; 200 epochs."""
    network = _network(2304 + 512 + 768, 512 + 768, align_weight=0.2, growth_steps=226)
    return _released(Moments(dataset="qvhighlights"), network, 200, "val", MomentRetrieval(round_to=2.0))


def qvhighlights_without_blip() -> Run:
    """The same without BLIP-2's features."""
    network = _network(2304 + 512, 512, align_weight=0.2, growth_steps=226)
    return _released(Moments(dataset="qvhighlights"), network, 200, "val", MomentRetrieval(round_to=2.0))


def charades_sta() -> Run:
    """Charades-STA, on the same features, one a second: 100 epochs."""
    network = _network(2304 + 512 + 768, 512 + 768, align_weight=0.3, growth_steps=388)
    return _released(Moments(dataset="charades_sta", clip_seconds=1.0), network, 100, "test", MomentRetrieval())
