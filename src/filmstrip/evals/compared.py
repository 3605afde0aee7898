"""Vectors of a split's videos and captions, for evaluations of two-tower models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from filmstrip.data.kinds.captioned import CaptionedSource
from filmstrip.errors import UserError
from filmstrip.evals.clips import map_clips
from filmstrip.evals.distributed import map_items
from filmstrip.inference import inference
from filmstrip.nn.patches import NativeFrames
from filmstrip.protocols import Batch, DualEncoder, Matcher
from filmstrip.runs.evaluation import Subject


class Compared(NamedTuple):
    """Videos of a split and their captions, encoded."""

    videos: Tensor
    """Vectors of the videos that can be read, ``N D`` or ``N K D``, on the CPU."""
    places: Tensor
    """Index of each of them in the split, ``N``."""
    texts: Tensor
    """Vectors of their captions, ``M D``, on the CPU."""
    matches: Tensor
    """Whether a caption is one of a video's, or in the same words, ``N M`` bool."""
    captions: list[str]
    """The captions in words, ``M``."""


def dual_encoder(subject: Subject) -> tuple[DualEncoder, CaptionedSource]:
    """The objective and the source of an evaluation that compares video with text.

    Raises:
        UserError: the objective does not encode both, or the data have no captions.
    """
    objective, source = subject.objective, subject.source
    if not isinstance(objective, DualEncoder):
        raise UserError(f"{type(objective).__name__} encodes no text: evaluate a model of video and text, as SigLIP")
    if not isinstance(source, CaptionedSource):
        raise UserError(f"{source.root} was read without captions: use --data.reads captioned")
    return objective, source


def compared(subject: Subject, split: str, *, all_captions: bool, batch_size: int) -> Compared:
    """Encode the videos of a split, one clip of each, and their captions, all or the first of each.

    Raises:
        UserError: as :func:`dual_encoder`, or no video can be read.
    """
    objective, source = dual_encoder(subject)

    def encode(batch: Batch, before: int) -> tuple[Tensor, Tensor]:
        with inference(subject.objective):
            return batch["index"].cpu(), video_vectors(objective, batch).cpu()

    found = list(map_clips(subject, encode, split, batch_size=batch_size))
    index, videos = (torch.cat(parts) for parts in zip(*found))
    samples = source.split(split)
    told = [samples[i].text if all_captions else samples[i].text[:1] for i in index.tolist()]
    distinct = list(dict.fromkeys(text for texts in told for text in texts))
    place = {text: i for i, text in enumerate(distinct)}
    vectors = encode_texts(subject, distinct, batch_size=batch_size)
    order = torch.tensor([place[text] for texts in told for text in texts])
    owned = torch.zeros(len(told), len(distinct), dtype=torch.bool)
    for row, texts in zip(owned, told):
        row[[place[text] for text in texts]] = True
    return Compared(videos, index, vectors[order], owned[:, order], [text for texts in told for text in texts])


def video_vectors(objective: DualEncoder, batch: Batch) -> Tensor:
    """Vectors ``B D`` (or ``B K D``) of a batch's videos, whose frames may differ in size, float32."""
    frames = NativeFrames.of(batch)
    if frames is None:
        return objective.encode_video(batch["video"]).float()
    return objective.encode_video(batch["video"], frames).float()


def similarities(subject: Subject, found: Compared) -> Tensor:
    """The model's own similarity of every video to every caption, ``N M``, on the CPU."""
    objective, _ = dual_encoder(subject)
    texts = found.texts.to(subject.device)
    with inference(subject.objective):
        rows = [objective.similarity(videos.to(subject.device), texts).cpu() for videos in found.videos.split(256)]
    return torch.cat(rows)


def reranked(
    subject: Subject, found: Compared, similarity: Tensor, split: str, top: int, *, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Scores ``N M`` of captions for videos, and of videos for captions, whose ``top`` most similar are judged anew.

    Those are ordered by the log-odds of a match, before all others, which stay in the order of their similarity.

    Raises:
        UserError: the objective does not read video and text together.
    """
    model, source = matcher(subject)

    def see(batch: Batch, before: int) -> Tensor:
        with inference(subject.objective):
            return model.see(batch["video"]).cpu()

    visual = list(map_clips(subject, see, split, batch_size=batch_size))
    rows = [row for part in visual for row in part]
    ids, lengths = source.tokens(found.captions)

    def odds(pairs: Tensor) -> Tensor:
        seen = torch.stack([rows[i] for i in pairs[:, 0].tolist()]).to(subject.device)
        texts = pairs[:, 1]
        with inference(subject.objective):
            return model.match(seen, ids[texts].to(subject.device), lengths[texts].to(subject.device)).float().cpu()

    scores = []
    for matrix, transposed in ((similarity, False), (similarity.T, True)):
        best = matrix.topk(min(top, matrix.shape[1])).indices
        own = torch.arange(len(matrix))[:, None].expand_as(best)
        pairs = torch.stack([best, own] if transposed else [own, best], dim=2).flatten(0, 1)
        judged = torch.cat(list(map_items(subject, pairs.split(batch_size), odds, "matching"))).view_as(best)
        below = matrix - matrix.amax() + judged.amin() - 1
        scores.append(below.scatter(1, best, judged))
    return scores[0], scores[1].T


def matcher(subject: Subject) -> tuple[Matcher, CaptionedSource]:
    """The objective, as what reads video and text together, and the source.

    Raises:
        UserError: it does not, or the data have no captions.
    """
    _, source = dual_encoder(subject)
    if not isinstance(subject.objective, Matcher):
        raise UserError(
            f"{type(subject.objective).__name__} has no matching head to rank results anew: leave rerank out, or "
            "evaluate language.blip or language.blip2"
        )
    return subject.objective, source


def encode_texts(subject: Subject, texts: Sequence[str], *, batch_size: int) -> Tensor:
    """Vectors of texts, ``M D``, on the CPU."""
    objective, source = dual_encoder(subject)

    def encode(part: Sequence[str]) -> Tensor:
        ids, lengths = source.tokens(part)
        with inference(subject.objective):
            return objective.encode_text(ids.to(subject.device), lengths.to(subject.device)).float().cpu()

    parts = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    return torch.cat(list(map_items(subject, parts, encode, "encoding texts")))


def ranks(similarity: Tensor, matches: Tensor) -> Tensor:
    """The rank of the best match of each row, from 1: one more than the number of others that are as similar, ``N``.

    Ties with what does not match count against it.
    """
    best = similarity.masked_fill(~matches, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((similarity >= best) & ~matches).sum(dim=1)


def recalls(name: str, found: Tensor, at: Sequence[int]) -> Iterator[tuple[str, float]]:
    """The shares of ranks up to each of ``at``, and the median rank."""
    for k in at:
        yield f"{name}_r{k}", (found <= k).float().mean().item()
    yield f"{name}_median_rank", found.float().median().item()
