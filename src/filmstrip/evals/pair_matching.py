"""Retrieval by a model that reads video and text together: every video of a split with every caption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.kinds.captioned import CaptionedSource
from filmstrip.errors import UserError
from filmstrip.evals.clips import map_clips
from filmstrip.evals.compared import ranks, recalls
from filmstrip.inference import inference
from filmstrip.protocols import Batch, Matcher
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class PairMatching(Evaluation):
    """R@k both ways and the median rank, as of ``retrieval``, of a model that has no vectors but judges pairs.

    The first caption of each video is searched and searched for. The work grows with the square of the split.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "text"})

    at: tuple[Count, ...] = (1, 5, 10)
    """Numbers of results among which the match may be."""
    batch_size: Count = 64
    """Number of pairs that are judged at once."""

    def check(self, subject: Subject) -> None:
        """The objective judges pairs, and the data have captions."""
        _matcher(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``matching/text_to_video_r1``, ... and ``matching/video_to_text_r1``, ..."""
        objective, source = _matcher(subject)

        def see(batch: Batch, before: int) -> tuple[Tensor, Tensor]:
            with inference(subject.objective):
                return batch["index"].cpu(), objective.see(batch["video"]).cpu()

        index, videos = (torch.cat(parts) for parts in zip(*map_clips(subject, see, batch_size=8)))
        samples = source.split(subject.data.eval_split)
        texts = [samples[i].text[0] for i in index.tolist()]
        distinct = list(dict.fromkeys(texts))
        ids, lengths = (part.to(subject.device) for part in source.tokens(distinct))
        rows = []
        for video in videos:
            scores = []
            for some, count in zip(ids.split(self.batch_size), lengths.split(self.batch_size)):
                with inference(subject.objective):
                    visual = video.to(subject.device).expand(len(some), -1, -1)
                    scores.append(objective.match(visual, some, count).float().cpu())
            rows.append(torch.cat(scores))
        matches = torch.tensor([[text == other for other in distinct] for text in texts])
        found = torch.stack(rows)
        yield from recalls("matching/text_to_video", ranks(found.T, matches.T), self.at)
        yield from recalls("matching/video_to_text", ranks(found, matches), self.at)


def _matcher(subject: Subject) -> tuple[Matcher, CaptionedSource]:
    """The objective and the source.

    Raises:
        UserError: the objective judges no pairs, or the data have no captions.
    """
    objective, source = subject.objective, subject.source
    if not isinstance(objective, Matcher):
        raise UserError(f"{type(objective).__name__} judges no pairs of video and text: evaluate VIOLET or BLIP")
    if not isinstance(source, CaptionedSource):
        raise UserError(f"{source.root} was read without captions: use --data.reads captioned")
    return objective, source
