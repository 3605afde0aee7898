"""Pictures of plain shapes with captions, drawn in memory, and small two-tower models that learn from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from claims.training import learn
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.data.synthetic.narration import caption, paraphrases, with_wrong_captions
from filmstrip.data.texts import tokenised
from filmstrip.evals.compared import ranks
from filmstrip.models.dual_encoder import SIGLIP_PIXELS
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.objectives.contrastive import Contrastive
from filmstrip.systems.language.siglip import SigLIPConfig
from filmstrip.text.tokenizers import TextTokenizer, Words

DRAWN = NarratedShapes(num_frames=1, size=48)
TRAIN, TEST, LENGTH = 2000, 300, 12
SHAPE = {"width": 64, "depth": 3, "num_heads": 4, "gelu": "tanh", "linear_init": "glorot"}


class Told(NamedTuple):
    """Pictures and their captions, as ids and in words."""

    video: Tensor
    """Pictures, ``N 1 3 48 48`` uint8."""
    ids: Tensor
    lengths: Tensor
    words: list[str]


def drawn(seed: int, *, noise: float = 0.0) -> tuple[Told, Told, TextTokenizer]:
    """Pictures to learn from, a share of them with wrong captions, others to test with, and a tokenizer of both."""
    videos, words = [], []
    for i in range(TRAIN + TEST):
        rng = np.random.default_rng((seed, i))
        shapes = DRAWN.scene(rng)
        videos.append(DRAWN.render(shapes, rng))
        words.append(caption(shapes))
    given, _ = with_wrong_captions([[text] for text in words[:TRAIN]], noise, np.random.default_rng((seed, 1, 0)))
    words[:TRAIN] = [texts[0] for texts in given]
    tokenizer = Words().fit([*words, *(other for text in words for other in paraphrases(text))], ())
    ids, lengths = tokenised(tokenizer, words, LENGTH)
    whole = torch.stack(videos)
    parts = [slice(0, TRAIN), slice(TRAIN, None)]
    train, test = (Told(whole[part], ids[part], lengths[part], words[part]) for part in parts)
    return train, test, tokenizer


def trained(
    told: Told,
    tokenizer: TextTokenizer,
    seed: int,
    *,
    loss: Literal["sigmoid", "softmax"],
    batch: int,
    samples: int,
    lr: float,
) -> Contrastive:
    """A two-tower model after as many samples in batches of a size, minus whose logarithm its bias begins at."""
    torch.manual_seed(seed)
    network = SigLIPConfig(
        vision=ImageTowerArchitecture(**SHAPE, num_frames=1, size=48, patch_size=8, **SIGLIP_PIXELS),
        text=TextArchitecture(**{**SHAPE, "depth": 1}, vocab_size=tokenizer.size, max_length=LENGTH),
        loss=loss,
        bias=-float(np.log(batch)),
    ).build()
    return learn(network, batches(told, batch, seed), steps=samples // batch, lr=lr, weight_decay=1e-4, warmup=0.1)


def batches(told: Told, size: int, seed: int) -> Callable[[], dict[str, Tensor]]:
    """Draws batches without repetition within one, in an order that the seed sets."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> dict[str, Tensor]:
        chosen = torch.randperm(len(told.video), generator=generator)[:size]
        return {
            "video": told.video[chosen],
            "text": told.ids[chosen],
            "text_length": told.lengths[chosen],
            "index": chosen,
        }

    return draw


@torch.no_grad()
def recall(network: Contrastive, told: Told) -> float:
    """Percentage of pictures whose caption, or one in the same words, is the most similar of all captions."""
    video = torch.cat([network.encode_video(part) for part in told.video.split(100)])
    text = network.encode_text(told.ids, told.lengths)
    matches = torch.tensor([[one == other for other in told.words] for one in told.words])
    return 100 * (ranks(video @ text.T, matches) == 1).double().mean().item()
