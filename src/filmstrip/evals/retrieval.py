"""Retrieval of text by video and of video by text (Karpathy & Fei-Fei 2015; the protocol of COCO and MSR-VTT)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from filmstrip.bounds import Count, CountOrZero, NotEmpty
from filmstrip.evals.compared import compared, dual_encoder, matcher, ranks, recalls, reranked, similarities
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Retrieval(Evaluation):
    """Share of queries whose match is among the first ``k`` (R@k), both ways, and the median rank of the match.

    A video is right if any of its captions is; captions in the same words match all of their videos.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "text"})
    takes_native: ClassVar[bool] = True

    at: Annotated[tuple[Count, ...], NotEmpty] = (1, 5, 10)
    """Numbers of results among which the match may be."""
    all_captions: bool = True
    """Whether all captions of a video are searched and searched for, instead of its first."""
    rerank: CountOrZero = 0
    """Number of the most similar results that a matching head orders anew (BLIP: 256 on COCO, 128 on MSR-VTT); zero
    for similarity alone."""
    split: str | None = None
    """Name of the split; none for the data's ``eval_split``."""
    batch_size: Count = 32

    def check(self, subject: Subject) -> None:
        """The objective encodes video and text, and matches them if that is to rank; the data have captions."""
        (matcher if self.rerank else dual_encoder)(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``retrieval/text_to_video_r1``, ... and ``retrieval/video_to_text_r1``, ..., and ``reranked/`` ones.

        Raises:
            UserError: as :meth:`check`, or no video can be read.
        """
        self.check(subject)
        split = self.split or subject.data.eval_split
        found = compared(subject, split, all_captions=self.all_captions, batch_size=self.batch_size)
        similarity = similarities(subject, found)
        yield from recalls("retrieval/text_to_video", ranks(similarity.T, found.matches.T), self.at)
        yield from recalls("retrieval/video_to_text", ranks(similarity, found.matches), self.at)
        if self.rerank:
            texts, videos = reranked(subject, found, similarity, split, self.rerank, batch_size=self.batch_size)
            yield from recalls("retrieval/reranked/text_to_video", ranks(videos.T, found.matches.T), self.at)
            yield from recalls("retrieval/reranked/video_to_text", ranks(texts, found.matches), self.at)
