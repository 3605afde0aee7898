"""Leaving out of a video what has not changed since the frame before costs little accuracy and saves most tokens."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from claims.ledger import Claim, Figure, Figures, above, below, equal
from claims.onevision_transfer import learn_attributes
from filmstrip.data.kinds.conversations import prompts
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.data.synthetic.narration import Question, Shape, questions
from filmstrip.evals.answers import answers, normalised
from filmstrip.models.decoder import DecoderConfig
from filmstrip.protocols import Batch
from filmstrip.systems.language.video_llama3 import NativeSiglipConfig, VideoLlama3, VideoLlama3Config
from filmstrip.text.conversation import Serialiser, Turn
from filmstrip.text.tokenizers import Words

SIZE, PATCH, FRAMES, TRAIN, TESTS, BATCH, STEPS = 32, 4, 4, 800, 200, 24, 300
KINDS = ("colour", "size", "place", "direction")
THRESHOLD = 0.03
"""Above what the noise of a pixel changes in the mean of a patch, below what a shape does."""

CLAIM = Claim(
    systems=("language.video_llama3",),
    finding=__doc__.strip(),
    paper="Zhang et al. 2025, section 3: a substantial reduction of tokens with a negligible loss; in words.",
    here="One shape that moves over still ground, 4 frames of 32 pixels, a token for 8 x 8 of them: 64 tokens a "
    "video. The encoder learns colours, sizes and places of first frames and is frozen; connector and a language "
    "model of 2 layers of 64 learn 300 steps from questions of colour, size, place and direction, with all tokens "
    "and, another model, with those that changed by more than 0.03 of a pixel's range. 200 unseen videos; an answer "
    "counts if it is the right one, word for word. Seconds are those of a processor in the language model.",
    baseline="As many tokens as are left, of fewer whole frames; and a model whose visual tokens are zeros.",
    figures={
        "whole": Figure(says="all tokens, right answers, %"),
        "changed": Figure(says="tokens that changed"),
        "frames": Figure(says="as many tokens, of fewer whole frames"),
        "blind": Figure(says="blind"),
        "tokens": Figure(says="tokens left, % of all"),
        "seconds": Figure(says="seconds of answers with the tokens left, % of those with all"),
        "noisy tokens": Figure(says="tokens left at the published threshold, 0.0002, on these noisy pixels, %"),
    },
    expected=(
        below("tokens", 60.0, "at least two tokens of five are left out", by=0.0),
        above("changed", "blind", "and it still sees: by 15 points over the blind model", by=15.0),
        equal("changed", "whole", "with the accuracy of all tokens, within 8 points", within=8.0),
        equal("noisy tokens", 100.0, "noise on pixels alone undoes the published threshold", within=5.0),
    ),
    minutes=6,
)


def measure(seed: int, folder: Path) -> Figures:
    train, test = drawn(TRAIN, seed), drawn(TESTS, seed + 10_000)
    texts = [text for _, _, one in (*train, *test) for text in (one.question, one.answer)]
    serialiser = Serialiser(Words().fit([*texts, "question: answer:"]), "plain")
    config = VideoLlama3Config(
        encoder=NativeSiglipConfig(width=64, depth=2, num_heads=4, mlp_dim=128, patch_size=(1, PATCH, PATCH)),
        decoder=DecoderConfig(vocab_size=serialiser.tokenizer.size, width=64, depth=2, num_heads=4, mlp_dim=128),
        placeholders=tuple(serialiser.places.values()),
        image_pixels=(SIZE**2, SIZE**2),
        threshold=None,
        trains=("connector", "decoder"),
    )
    pruned = replace(config, threshold=THRESHOLD)
    torch.manual_seed(seed)
    encoder = config.build().encoder
    first = torch.stack([video[:1] for video, _, _ in train])
    learn_attributes(encoder, first, [shape for _, shape, _ in train], seed)
    found, seconds = {}, {}
    share = 0.0
    for name, own, frames in (
        ("changed", pruned, FRAMES),
        ("whole", config, FRAMES),
        ("frames", config, 0),
        ("blind", replace(config, sees=False), 2),
    ):
        # As many whole frames as there are tokens left, two at least.
        frames = frames or max(2, round(share * FRAMES))
        at = torch.linspace(0, FRAMES - 1, frames).round().long()
        torch.manual_seed(seed)
        model = own.build()
        model.encoder.load_state_dict(encoder.state_dict())
        learn(model, serialiser, train, at, seed)
        found[name], seconds[name], tokens = asked(model, serialiser, test, at)
        if name == "changed":
            share = tokens / (FRAMES * (SIZE // PATCH // 2) ** 2)
    videos = torch.stack([video for video, _, _ in test])
    noisy = replace(pruned, threshold=VideoLlama3Config.threshold).build().kept(videos)
    found |= {
        "tokens": 100 * share,
        "seconds": 100 * seconds["changed"] / seconds["whole"],
        "noisy tokens": 100 * float(noisy.float().mean()),
    }
    return found


Asked = tuple[Tensor, Shape, Question]
"""A video ``T 3 H W``, its shape, and a question of it."""


def drawn(count: int, seed: int) -> list[Asked]:
    """Videos ``T 3 H W`` uint8, their shape, and a question of it, the kinds in turn."""
    shapes = NarratedShapes(num_frames=FRAMES, size=SIZE)
    found = []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        scene = shapes.scene(rng)
        video = shapes.render(scene, rng)
        asked = [one for one in questions(scene, rng, in_turn=False) if one.kind in KINDS]
        found.append((video, scene[0], asked[i % len(asked)]))
    return found


def learn(model: VideoLlama3, serialiser: Serialiser, train: list[Asked], at: Tensor, seed: int) -> None:
    """Train the connector and the language model on questions about the frames ``at``."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=STEPS, pct_start=0.1)
    rng = np.random.default_rng((seed, 1))
    model.train()
    for _ in range(STEPS):
        optimiser.zero_grad()
        chosen = [train[int(i)] for i in rng.integers(len(train), size=BATCH)]
        model(marked(serialiser, chosen, at)).total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def marked(serialiser: Serialiser, some: list[Asked], at: Tensor) -> Batch:
    """A batch of conversations."""
    rows = [
        serialiser.mark([Turn("user", f"<video>\n{one.question}"), Turn("assistant", one.answer)])
        for _, _, one in some
    ]
    length, pad = max(len(row.ids) for row in rows), serialiser.tokenizer.pad
    return {
        "video": torch.stack([video[at] for video, _, _ in some]),
        "text": torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows]),
        "learnt": torch.tensor([row.learnt + [False] * (length - len(row.ids)) for row in rows]),
        "text_length": torch.tensor([len(row.ids) for row in rows]),
    }


@torch.no_grad()
def asked(model: VideoLlama3, serialiser: Serialiser, test: list[Asked], at: Tensor) -> tuple[float, float, float]:
    """Right answers in percent, seconds of answering, and the mean number of visual tokens."""
    right, took, tokens = 0, 0.0, 0.0
    for begin in range(0, len(test), 50):
        some = test[begin : begin + 50]
        visual = model.see(torch.stack([video[at] for video, _, _ in some]))
        tokens += float(visual.sizes.sum())
        batch = prompts(serialiser, [[Turn("user", f"<video>\n{one.question}")] for _, _, one in some])
        start = time.process_time()
        said = answers(model, visual, batch, serialiser, count=8)
        took += time.process_time() - start
        right += sum(normalised(a) == normalised(one.answer) for a, (_, _, one) in zip(said, some))
    return 100 * right / len(test), took, tokens / len(test)
