"""Rolling tokens to the next frame tells a transformer of single frames which way things go, at no cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below, equal
from claims.training import learn
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.data.synthetic.narration import MOTIONS
from filmstrip.data.texts import tokenised
from filmstrip.measure import complexity
from filmstrip.models.video_transformer import JOINT, SpaceTimeTransformer
from filmstrip.objectives.contrastive import Pairing
from filmstrip.systems.language.all_in_one import AllInOne, AllInOneConfig
from filmstrip.text.tokenizers import Words

FRAMES, SIZE, LENGTH, BATCH = 3, 32, 8, 32
TRAIN, TEST, STEPS = 1500, 300, 500
SHAPES = NarratedShapes(num_frames=FRAMES, size=SIZE)
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}

CLAIM = Claim(
    systems=("language.all_in_one",),
    finding=__doc__.strip(),
    paper="Wang et al. 2023: token rolling models time without parameters, and is better than frames that are "
    "averaged and than rolling channels.",
    here=f"{TRAIN} clips of 3 frames of 32 x 32 pixels of a shape that moves left, right, up or down, each played "
    f"forwards and backwards, with captions. {STEPS} steps of contrast alone, in batches with both directions of "
    "each clip, without positions of frames, which would tell their order otherwise. Which of two captions, of the "
    "clip and of the clip backwards, is more similar to a clip, for 300 others in both directions.",
    baseline="The same network without rolling, to which a clip backwards is the same clip; and attention over all "
    "tokens of a clip, whose cost is counted.",
    figures={
        "rolling": Figure(says="with rolling: right direction, %"),
        "none": Figure(says="without rolling"),
        "cost, rolling": Figure(says="multiply-adds of a clip with rolling, mega", digits=2),
        "cost, none": Figure(says="multiply-adds without rolling, mega", digits=2),
        "cost, joint": Figure(says="multiply-adds with attention over the whole clip, mega", digits=2),
    },
    expected=(
        above("rolling", "none", "rolling sees which way things go, by 20 points", by=20.0),
        equal("none", 50.0, "without it a clip and its reverse are one", within=0.01),
        equal("cost, rolling", "cost, none", "it costs nothing", within=0.0),
        below("cost, rolling", "cost, joint", "and less than attention over the whole clip"),
    ),
    seeds=3,
    analysis="Rolling costs nothing and tells a clip from its reverse above chance in every seed (57, 55 and "
    "52%), which it cannot do without. It is a beginning: most of the order is not learnt in so few steps.",
    minutes=6,
)


class Contrasted(AllInOne):
    """All-in-one that learns from its contrast alone: of its losses the one that needs no passes of pairs."""

    forward = Pairing.forward


class Played(NamedTuple):
    """Clips ``N T 3 H W`` uint8, and their captions: forwards, and backwards."""

    video: Tensor
    forwards: Tensor
    backwards: Tensor
    lengths: Tensor
    """Of both, which have as many words."""


def measure(seed: int, folder: Path) -> dict[str, float]:
    train, test, vocabulary = drawn(seed)
    found = {}
    for name, share in (("rolling", 0.125), ("none", 0.0)):
        config = configured(vocabulary, share)
        torch.manual_seed(seed)
        network = Contrasted(config)
        network.encoder.time_pos_embed.requires_grad_(False)
        learn(network, batches(train, seed), steps=STEPS, lr=2e-3, weight_decay=1e-4, warmup=0.1)
        found[name] = right(network, test)
        found[f"cost, {name}"] = cost(lambda config=config: config.build().encoder)
    plain = configured(vocabulary, 0.0)
    found["cost, joint"] = cost(lambda: SpaceTimeTransformer(JOINT, plain, time_positions=True))
    return found


def drawn(seed: int) -> tuple[Played, Played, int]:
    """Clips to learn from, others to test with, and the size of the vocabulary of both."""
    videos, words = [], []
    for i in range(TRAIN + TEST):
        rng = np.random.default_rng((seed, i))
        while (shape := SHAPES.scene(rng)[0]).motion not in OPPOSITE:
            pass
        videos.append(SHAPES.render((shape,), rng))
        ways = (shape.motion, OPPOSITE[shape.motion])
        words.append([f"a {shape.noun} {MOTIONS[way]}" for way in ways])
    tokenizer = Words().fit([text for both in words for text in both], ())
    told = [tokenised(tokenizer, texts, LENGTH) for texts in zip(*words)]
    whole = Played(torch.stack(videos), told[0][0], told[1][0], told[0][1])
    parts = (slice(0, TRAIN), slice(TRAIN, None))
    train, test = (Played(*(values[part] for values in whole)) for part in parts)
    return train, test, tokenizer.size


def configured(vocabulary: int, share: float) -> AllInOneConfig:
    return AllInOneConfig(
        width=64,
        depth=3,
        num_heads=4,
        num_frames=FRAMES,
        size=SIZE,
        patch_size=8,
        linear_init="glorot",
        vocab_size=vocabulary,
        max_length=LENGTH,
        embed_dim=64,
        roll_share=share,
    )


def cost(encoder: Callable[[], torch.nn.Module]) -> float:
    """Mega multiply-adds of encoding a clip."""
    with torch.device("meta"), torch.no_grad(), complexity.flop_counter() as counter:
        encoder()(torch.empty(1, FRAMES, 3, SIZE, SIZE))
    return counter.get_total_flops() / 2e6


def batches(played: Played, seed: int) -> Callable[[], dict[str, Tensor]]:
    """Draws batches of clips, each forwards and backwards, in an order that the seed sets."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> dict[str, Tensor]:
        chosen = torch.randperm(TRAIN, generator=generator)[: BATCH // 2]
        video = played.video[chosen]
        return {
            "video": torch.cat([video, video.flip(1)]),
            "text": torch.cat([played.forwards[chosen], played.backwards[chosen]]),
            "text_length": played.lengths[chosen].repeat(2),
            "index": torch.cat([chosen * 2, chosen * 2 + 1]),
        }

    return draw


@torch.no_grad()
def right(network: AllInOne, played: Played) -> float:
    """Percentage of clips, in both directions, that are more similar to their caption than to the opposite one.

    Clips to which both are as similar count half.
    """
    texts = [network.encode_text(ids, played.lengths) for ids in (played.forwards, played.backwards)]
    found = []
    for own, other, video in ((*texts, played.video), (*texts[::-1], played.video.flip(1))):
        seen = torch.cat([network.encode_video(part) for part in video.split(100)])
        ahead = (seen * own).sum(dim=1) - (seen * other).sum(dim=1)
        found.append((ahead > 1e-6).double() + ((ahead.abs() <= 1e-6).double() / 2))
    return 100 * torch.cat(found).mean().item()
