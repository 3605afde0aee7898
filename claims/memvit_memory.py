"""Memory lets a clip know what clips before it showed, for a few percent more work."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from claims.ledger import Claim, Figure, above, below, equal
from claims.training import Batch, learn, percent
from filmstrip import systems
from filmstrip.measure.complexity import flop_counter
from filmstrip.systems.recognition.memvit import ClipByClip, MeMViTConfig
from filmstrip.systems.recognition.mvit import MViTConfig

CLIPS, FRAMES, SIZE, CLASSES, TINT = 4, 8, 16, 8, 0.2
STEPS, BATCH, TESTS = 300, 8, 320
NETWORK = {
    "width": 32,
    "depth": 2,
    "stages": (1,),
    "kv_stride": (1, 2, 2),
    "num_frames": FRAMES,
    "size": SIZE,
    "summary": "mean",
    "drop_path": 0.0,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "num_classes": CLASSES,
}

CLAIM = Claim(
    systems=("recognition.memvit",),
    finding=__doc__.strip(),
    paper="Wu et al. 2022, table 3: on AVA 2.2, MeMViT-16 has 27.0 mAP without memory and 29.3 with, for 57.4 and "
    "58.7 G multiply-adds a clip (+2.3%).",
    here="Four clips of 8 frames make a video: the first is noise that is tinted in one of eight ways "
    "(each of red, green and blue up or down), the others noise alone, and every clip is asked how the video was "
    "tinted. One network reads the clips with two in memory, the same network each clip for itself, 300 steps "
    "each; 320 unseen videos, chance 12.5. The fourth clip no longer remembers the first: it must learn of it "
    "from those between. Costs are counted.",
    baseline="The same network without memory; and reading all frames so far at once.",
    figures={
        **{f"clip {i}, memory": Figure(says=f"clip {i} with memory: top-1, %") for i in range(1, CLIPS + 1)},
        **{f"clip {i}, alone": Figure(says=f"clip {i} without: top-1, %") for i in range(1, CLIPS + 1)},
        "cost, memory": Figure(says="work added by memory in the fourth clip, here, %"),
        "cost, whole": Figure(says="work added by reading all four clips at once, here, %"),
        "paper, without": Figure(says="MeMViT-16 without memory, G multiply-adds", paper="57.4"),
        "paper, with": Figure(says="with full memory, G multiply-adds", paper="58.7"),
        "paper, added": Figure(says="added, %", paper="2.3"),
    },
    expected=(
        *(
            above(f"clip {i}, memory", f"clip {i}, alone", f"clip {i} knows more with memory than without")
            for i in range(2, CLIPS + 1)
        ),
        equal("paper, added", 2.3, "memory adds to the paper's network what the paper says", within=0.2),
        below("cost, memory", 5.0, "memory adds a few percent of work here"),
        below("cost, memory", "cost, whole", "less than reading everything at once"),
    ),
    minutes=5,
    seeds=5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for what, remembers in (("memory", True), ("alone", False)):
        for i, top1 in enumerate(told(remembers, seed), start=1):
            found[f"clip {i}, {what}"] = top1
    first, *_, last = clip_costs(MeMViTConfig(**NETWORK, memory_every=1), CLIPS)
    found["cost, memory"] = 100 * (last / first - 1)
    found["cost, whole"] = 100 * (whole_cost(CLIPS * FRAMES) / first - 1)
    paper = clip_costs(systems.find("recognition.memvit:base_16x4_k400").objective, 3)
    found |= {"paper, without": paper[0] / 1e9, "paper, with": paper[2] / 1e9}
    return found | {"paper, added": 100 * (paper[2] / paper[0] - 1)}


def told(remembers: bool, seed: int) -> list[float]:
    """The percentage that each clip of unseen videos names, after training on videos that are never the same."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Batch:
        video, label = make(BATCH, generator)
        if not remembers:  # each clip is a video of its own
            video, label = apart(video), label.repeat_interleave(CLIPS)
        return {"video": video, "label": label}

    network = MeMViTConfig(**NETWORK, memory_every=1).build()
    learn(network, draw, steps=STEPS, lr=3e-3, weight_decay=0.01, warmup=0.2)
    video, label = make(TESTS, generator)
    with torch.no_grad():
        said = torch.cat([answers(network, part, remembers).argmax(-1) for part in video.split(32)])
    return [percent(clip, label) for clip in said.unbind(1)]


def make(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Videos ``B T 3 H W`` in 0..1 of ``CLIPS`` clips, and what the first clip of each shows."""
    video = 0.5 + 0.1 * torch.randn(count, CLIPS * FRAMES, 3, SIZE, SIZE, generator=generator)
    label = torch.randint(CLASSES, (count,), generator=generator)
    tint = TINT * (2 * (label[:, None] >> torch.arange(3) & 1) - 1)
    video[:, :FRAMES] += tint[:, None, :, None, None]
    return video.clamp_(0, 1), label


def answers(objective: ClipByClip, video: Tensor, remembers: bool) -> Tensor:
    """Logits of each clip, ``B clips K``: read in order, or each for itself."""
    if remembers:
        return objective.logits(video)
    return rearrange(objective.logits(apart(video)), "(b n) 1 k -> b n k", n=CLIPS)


def apart(video: Tensor) -> Tensor:
    """Every clip as a video of its own."""
    return rearrange(video, "b (n t) c h w -> (b n) t c h w", n=CLIPS)


def clip_costs(config: MeMViTConfig, clips: int) -> list[int]:
    """Multiply-adds of each of so many clips, read one after the other."""
    costs = []
    with torch.device("meta"), torch.no_grad():
        encoder = config.build().encoder.eval()
        memory, clip = encoder.new_memory(), torch.empty(1, config.num_frames, 3, config.size, config.size)
        for _ in range(clips):
            with flop_counter() as counter:
                encoder.read(clip, memory)
            costs.append(counter.get_total_flops() // 2)
    return costs


def whole_cost(frames: int) -> int:
    """Multiply-adds of the plain network on so many frames at once."""
    with torch.device("meta"), torch.no_grad():
        encoder = MViTConfig(**NETWORK | {"num_frames": frames}).build().encoder.eval()
        with flop_counter() as counter:
            encoder(torch.empty(1, frames, 3, SIZE, SIZE))
    return counter.get_total_flops() // 2
