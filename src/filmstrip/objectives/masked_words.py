"""Masked words: some tokens of a text are hidden, and are to be said from the others and from what is seen.

Devlin et al. 2019 (BERT), section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from filmstrip.randomness import uniform


def mask_words(
    ids: Tensor,
    valid: Tensor,
    seeds: Tensor,
    use: str,
    *,
    mask_id: int,
    vocab_size: int,
    share: float = 0.15,
    shown: float = 0.1,
    replaced: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Texts ``B L`` with masked tokens, and which tokens are to be said, ``B L`` bool.

    A ``share`` of the tokens between the first and the last of each text, which begin and end it, is to be said; of
    these a share is ``shown`` as it is, another ``replaced`` by any token, and the rest is ``mask_id``. ``valid``
    (``B L`` bool) tells tokens from padding; ``use`` names the draws from ``seeds``.
    """
    length = ids.shape[1]
    which, how, other = uniform(seeds, 3 * length, f"{use}.words").view(-1, 3, length).unbind(dim=1)
    place = torch.arange(length, device=ids.device)
    chosen = (which < share) & (place > 0) & (place < valid.sum(dim=1, keepdim=True) - 1)
    given = torch.where(how < shown + replaced, (other * vocab_size).long(), mask_id)
    return torch.where(chosen & (how >= shown), given, ids), chosen
