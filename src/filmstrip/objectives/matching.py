"""Video and text that are read together: which pairs belong together, and which similar ones do not; texts' lengths.

Li et al. 2021 (ALBEF): for each video one text of the batch is drawn by its similarity, and for each text one video.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.nn.decoding import Writing
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.randomness import uniform

Judge = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits ``N 2`` of no and yes, of visual tokens ``N M C``, a text (ids ``N L``, or vectors ``N L D``) and which of
its tokens are no padding."""


def matching_loss(
    judge: Judge,
    visual: Tensor,
    ids: Tensor,
    valid: Tensor,
    similarity: tuple[Tensor, Tensor],
    same: Tensor,
    seeds: Tensor,
    use: str,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the pairs of a batch and as many hard ones with another video, and another text.

    ``similarity`` are logits from videos to texts and from texts to videos, both ``B B``, and ``same`` (``B B``, a
    row for each video) says which pairs match; ``use`` names the draw from ``seeds``. Also returns the share of pairs
    that are judged rightly.
    """
    video_to_text, text_to_video = similarity
    videos = similar(text_to_video, same.T, uniform(seeds, 1, f"{use}.other_video"))
    texts = similar(video_to_text, same, uniform(seeds, 1, f"{use}.other_text"))
    return pairs_loss(judge, visual, ids, valid, same, videos, texts)


def pairs_loss(
    judge: Judge, visual: Tensor, text: Tensor, valid: Tensor, same: Tensor, videos: Tensor, texts: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`matching_loss`, where the other ``videos`` and ``texts`` are chosen (``B``); ``text`` is whatever is
    judged, ids ``B L`` or vectors ``B L D``."""
    said = judge(
        torch.cat([visual, _at(visual, videos), visual]),
        torch.cat([text, text, _at(text, texts)]),
        torch.cat([valid, valid, valid[texts]]),
    )
    rows = torch.arange(text.shape[0], device=text.device)
    label = torch.cat([torch.ones_like(same[0]), same[videos, rows], same[rows, texts]]).to(torch.int64)
    return F.cross_entropy(said.float(), label), (said.argmax(dim=1) == label).float().mean()


def _at(rows: Tensor, index: Tensor) -> Tensor:
    return F.embedding(index, rows.flatten(1)).view_as(rows)


def similar(logits: Tensor, same: Tensor, chance: Tensor) -> Tensor:
    """A column for each row, ``B``, drawn by its similarity from those that are not the same.

    Where all are the same, it is one of them.
    """
    weights = (logits.softmax(dim=1) + 1e-4).masked_fill(same, 0.0) + 1e-12
    return draw(weights.log(), chance[:, 0], Sampling())


def check_length(begun: int, writing: Writing, most: int) -> int:
    """The length of a text of which so many tokens have ``begun``, once it is written.

    Raises:
        UserError: it is longer than the network reads.
    """
    length = begun + writing.max_tokens
    if length > most:
        raise UserError(
            f"captions of {writing.max_tokens} tokens after a beginning of {begun} are longer than the {most} tokens "
            "that the network reads: lower the maximum (--max-tokens)"
        )
    return length


def valid_tokens(ids: Tensor, lengths: Tensor) -> Tensor:
    """Which of the tokens of texts ``B L`` are no padding, bool."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
