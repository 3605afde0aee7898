"""A recurrent network knows in which order it saw the frames; their average does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, equal
from claims.training import answers, learn, percent
from filmstrip.systems.recognition import late_fusion, lrcn, recurrent_conv

FRAMES, SIZE, BATCH, STEPS, TESTS = 8, 32, 16, 200, 320
NETWORKS = {
    "average": (late_fusion.tiny_pooling, "the average of frames (late_fusion:tiny_pooling)"),
    "lrcn": (lrcn.tiny, "an LSTM over frames (lrcn)"),
    "recurrent_conv": (recurrent_conv.tiny, "a recurrent convolutional network"),
}

CLAIM = Claim(
    systems=("recognition.lrcn", "recognition.recurrent_conv"),
    finding=__doc__.strip(),
    paper="The lecture (Johnson, 24.4.1): LRCN carries what a convolutional network sees of each frame through an "
    "LSTM, a recurrent convolutional network carries whole maps; no figure is given.",
    here="A texture goes left or right; frames alone say nothing. 200 steps on clips that are never the same; 320 "
    "unseen clips forwards and backwards: who follows the order names the opposite of a clip that is played "
    "backwards. Chance is 50.",
    baseline="A network that averages its frames.",
    figures={
        f"{name}{what}": Figure(says=f"{shown}: {says}, %")
        for name, (_, shown) in NETWORKS.items()
        for what, says in (("", "top-1"), (", backwards", "names the opposite backwards"))
    },
    expected=(
        above("lrcn", "average", "an LSTM tells more than the average, by 25 points", by=25.0),
        above("recurrent_conv", "average", "the recurrent convolution tells more, by 25 points", by=25.0),
        equal("average", 50.0, "the average stays at chance, within 10 points", within=10.0),
        above("lrcn, backwards", 90.0, "the LSTM takes 9 in 10 clips for the opposite backwards"),
        above("recurrent_conv, backwards", 90.0, "and so does the recurrent convolution"),
    ),
    minutes=1,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for name, (preset, _) in NETWORKS.items():
        run = preset()
        torch.manual_seed(seed)
        network = replace(run.objective, num_classes=2).build()
        generator = torch.Generator().manual_seed(seed)

        def draw(generator: torch.Generator = generator) -> dict[str, Tensor]:
            return dict(zip(("video", "label"), make(BATCH, generator)))

        learn(network, draw, steps=STEPS, lr=run.optim.lr)
        video, label = make(TESTS, generator)
        said, backwards = (answers(network, clips) for clips in (video, video.flip(1)))
        found[name], found[f"{name}, backwards"] = percent(said, label), 100 - percent(said, backwards)
    return found


def make(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips ``B T 3 H W`` in 0..1 of a texture that goes left (0) or right (1), and which."""
    label = torch.randint(2, (count,), generator=generator)
    speed, turns, height, start = torch.rand(4, count, 1, 1, 1, generator=generator)
    ticks = torch.arange(SIZE) / SIZE
    way = 2 * label[:, None, None, None] - 1
    shift = start + way * (0.03 + 0.03 * speed) * torch.arange(FRAMES)[:, None, None]
    x, y = (2 * torch.pi * (1 + turns) * part for part in (ticks - shift, ticks[:, None] - height))
    texture = (torch.sin(x) * torch.sin(y))[:, :, None]
    colour = 0.6 * torch.rand(count, 1, 3, 1, 1, generator=generator) - 0.3
    return 0.5 + texture * colour, label
