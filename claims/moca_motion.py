"""A source's flow makes an edited first frame move as the source did, and is in the way where motion is to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below
from claims.training import learn
from filmstrip.data.synthetic.edits import EditedScenes, Scene
from filmstrip.data.texts import Vocabulary, tokenised
from filmstrip.models.video_unet import VideoUNetArchitecture
from filmstrip.objectives.diffusion import DiffusionConfig
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.protocols import VideoEdit, as_float
from filmstrip.systems.editing.moca import DROPOUT, MoCA, MoCAConfig
from filmstrip.systems.tokenizers.vae_kl import VAEKLConfig
from filmstrip.text.tokenizers import Words

SIZE, FRAMES, LENGTH = 32, 8, 16
SCENES, EDITED = 400, 16
TOKENIZER_STEPS, STEPS, BATCH = 200, 500, 8
SAMPLING = DiffusionSampling(steps=12)
ONE = {"image": 1.0, "text": 1.0}
SPATIAL = ("background", "object")

CLAIM = Claim(
    systems=("editing.moca",),
    finding=__doc__.strip(),
    paper="Thesis ch. 7, table 7.5: people prefer edits with the motion condition to those without in 58% (57 to 60% "
    "by type); edits of the motion itself are made without it. The mean magnitude of the flow is told because its "
    "picture is normalised (7.2). Each condition and each pair are dropped in training, which guidance needs.",
    here="MoCA in miniature: a U-Net of 0.5 million parameters on 8 x 8 latents of a tokenizer trained before, "
    f"{STEPS} steps on {SCENES} synthetic scenes of a shape that moves, with flow by DIS. It animates true edited "
    "first frames of unseen scenes. Measured is how far the shape ends from where it should, in pixels of 32: of "
    "background and object edits with the motion's scale at 0, 1 and 2; of edits of the motion with the source's "
    "motion and without. Two speeds of one scene: how much further the shape goes at the faster one, with the true "
    "magnitude told and with the mean one. And the error of the prediction that knows nothing (the first term of "
    "guidance), trained and untrained. All other scales are 1.",
    baseline="The same network without the motion condition, or with another magnitude; the untrained one.",
    figures={
        "asked": Figure(says="way of the shapes, px", digits=2),
        "spatial, motion 0": Figure(says="background, object: distance, motion not told, px", digits=2),
        "spatial, motion 1": Figure(says="background, object: distance, motion told, px", digits=2),
        "spatial, motion 2": Figure(says="background, object: distance, scale 2, px", digits=2),
        "motion, kept": Figure(says="motion: distance to what is asked, source's motion told, px", digits=2),
        "motion, dropped": Figure(says="motion: distance to what is asked, motion not told, px", digits=2),
        "faster, told": Figure(says="how much further at the faster speed, magnitude told, px", digits=2),
        "faster, not told": Figure(says="how much further, mean magnitude told, px", digits=2),
        "faster, true": Figure(says="how much further in truth, px", digits=2),
        "nothing, untrained": Figure(says="error of the prediction that knows nothing, untrained", digits=3),
        "nothing, trained": Figure(says="error of the prediction that knows nothing, trained", digits=3),
    },
    expected=(
        below("spatial, motion 1", "spatial, motion 0", "edits keep the motion better with the condition"),
        below("motion, dropped", "motion, kept", "edits of the motion need it dropped"),
        above("faster, told", "faster, not told", "the magnitude tells how fast"),
        below("nothing, trained", "nothing, untrained", "the first term of guidance is trained", by=0.2),
    ),
    minutes=20,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    torch.manual_seed(seed)
    made, rng = EditedScenes(size=SIZE), np.random.default_rng((seed, 1))
    scenes = [made.scene(rng) for _ in range(SCENES)]
    videos = torch.stack([made.render(scene) for scene in scenes])
    moca, words = built([scene.caption for scene in scenes])
    moca.tokenizer.load_state_dict(tokenizer(videos, seed), strict=False)
    ids, lengths = tokenised(words, [scene.caption for scene in scenes], LENGTH)
    moca.train()
    latents = torch.cat([moca.latents(part) for part in videos.split(50)])
    told = [moca.motion_of(part) for part in videos.split(50)]
    motion = torch.cat([moca.encode(pictures) for pictures, _ in told]) * moca.latent_scale
    magnitude = torch.cat([each for _, each in told])

    def rows(chosen: Tensor, number: int) -> tuple[dict[str, Tensor], Any, Tensor]:
        batch = {"seed": chosen + 10_000 * (number + 1)}
        known = moca.told(moca.read(ids[chosen], lengths[chosen]))
        own = replace(known, image=latents[chosen, :1], motion=motion[chosen], magnitude=magnitude[chosen])
        return batch, own, latents[chosen]

    def nothing_known() -> float:
        batch, known, clean = rows(torch.arange(64), 10**6)
        known = moca.told(moca.read_empty().expand(64, -1, -1))
        with torch.no_grad():
            return moca.losses(batch, known, clean, "claim").mean().item()

    found = {"nothing, untrained": nothing_known()}
    optimiser = torch.optim.AdamW((p for p in moca.parameters() if p.requires_grad), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=STEPS, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for number in range(STEPS):
        loss = moca.losses(*rows(torch.randint(SCENES, (BATCH,), generator=generator), number), "clip").mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moca.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    moca.eval()
    found["nothing, trained"] = nothing_known()
    return found | measured(moca, words, made, rng)


def built(captions: list[str]) -> tuple[MoCA, Any]:
    """The network, and the tokenizer of words."""
    words = Words().fit(captions, ())
    vocabulary = Vocabulary.of(words)
    empty = [i for i in (vocabulary.start, vocabulary.end) if i is not None]
    config = MoCAConfig(
        tokenizer=VAEKLConfig.small(),
        untrained_tokenizer=True,
        num_frames=FRAMES,
        size=SIZE,
        unet=VideoUNetArchitecture(
            widths=(16, 32), depth=1, attention_levels=(1,), head_dim=8, context_width=32, groups=8
        ),
        diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True),
        dropout=DROPOUT,
        vocab_size=vocabulary.size,
        text_length=LENGTH,
        empty_text=tuple(empty),
        text_padding=vocabulary.pad,
        sampling=SAMPLING,
    )
    return config.build(), words


def tokenizer(videos: Tensor, seed: int) -> dict[str, Tensor]:
    """Weights of a tokenizer of these videos' frames, and of pictures of flow, which are smooth and bright."""
    config = replace(VAEKLConfig.small(), adversarial_weight=0.0, perceptual_weight=0.1)
    network, generator = config.build(), torch.Generator().manual_seed(seed)

    def draw() -> dict[str, Tensor]:
        frames = videos[torch.randint(len(videos), (24,), generator=generator), torch.randint(FRAMES, (24,))]
        smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 4, 4, generator=generator), SIZE, mode="bicubic")
        return {"video": torch.cat([as_float(frames), smooth.clamp(0, 1)])[:, None]}

    learnt = learn(network, draw, steps=TOKENIZER_STEPS, lr=4e-3, weight_decay=0.0).state_dict()
    return {name: value for name, value in learnt.items() if name.startswith("autoencoder.")}


def measured(moca: MoCA, words: Any, made: EditedScenes, rng: np.random.Generator) -> dict[str, float]:
    """Distances of edits of unseen scenes, in pixels."""
    scenes = [made.scene(rng) for _ in range(EDITED)]
    spatial = [made.edited(scene, SPATIAL[i % 2], rng) for i, scene in enumerate(scenes)]
    moving = [made.edited(scene, "motion", rng) for scene in scenes]
    slow = [replace(scene, speed=0.4) for scene in scenes]
    fast = [replace(scene, speed=1.0) for scene in scenes]

    def ends(sources: list[Scene], edits: list[Scene], motion: float, magnitudes: Tensor | None = None) -> Tensor:
        """Where shapes end from where they began, ``B 2``, in pixels of the frame."""
        edited = animated(moca, words, made, sources, edits, motion, magnitudes)
        return torch.stack([way(video, made, scene) for video, scene in zip(edited, edits)])

    def true(scenes: list[Scene]) -> Tensor:
        paths = np.stack([scene.path(FRAMES) for scene in scenes])
        return torch.from_numpy(paths[:, -1] - paths[:, 0]).float() * SIZE

    def distance(found: Tensor, wanted: list[Scene]) -> float:
        return torch.linalg.vector_norm(found - true(wanted), dim=1).mean().item()

    def further(magnitudes: Tensor | None) -> float:
        along = torch.nn.functional.normalize(true(fast), dim=1)
        return (
            ((ends(fast, fast, 1.0, magnitudes) - ends(slow, slow, 1.0, magnitudes)) * along).sum(dim=1).mean().item()
        )

    videos = torch.stack([made.render(scene) for scene in [*slow, *fast]])
    mean = moca.motion_of(videos)[1].mean().expand(EDITED)
    return {
        "asked": torch.linalg.vector_norm(true(spatial), dim=1).mean().item(),
        **{f"spatial, motion {s:g}": distance(ends(scenes, spatial, s), spatial) for s in (0.0, 1.0, 2.0)},
        "motion, kept": distance(ends(scenes, moving, 1.0), moving),
        "motion, dropped": distance(ends(scenes, moving, 0.0), moving),
        "faster, told": further(None),
        "faster, not told": further(mean),
        "faster, true": torch.linalg.vector_norm(true(fast) - true(slow), dim=1).mean().item(),
    }


def animated(
    moca: MoCA,
    words: Any,
    made: EditedScenes,
    sources: list[Scene],
    edits: list[Scene],
    motion: float,
    magnitudes: Tensor | None,
) -> Tensor:
    """True edited first frames, animated: ``B T 3 H W``. ``magnitudes`` stand in for those of the sources."""
    videos = torch.stack([made.render(scene) for scene in sources])
    text, text_length = tokenised(words, [scene.caption for scene in edits], LENGTH)
    source, source_length = tokenised(words, [scene.caption for scene in sources], LENGTH)
    edit = VideoEdit(
        video=videos,
        source_text=source,
        source_length=source_length,
        text=text,
        text_length=text_length,
        seeds=torch.arange(len(videos)),
        keeps_motion=motion > 0,
        frame=torch.stack([made.render(scene)[0] for scene in edits]),
        guidance=ONE | {"motion": motion},
    )
    if magnitudes is None:
        return moca.edit(edit)
    own = moca.motion_of
    moca.motion_of = lambda video: (own(video)[0], magnitudes)
    try:
        return moca.edit(edit)
    finally:
        del moca.motion_of


def way(video: Tensor, made: EditedScenes, scene: Scene) -> Tensor:
    """From the middle of the shape in the first frame to that in the last one, x and y in pixels."""
    ground = as_float(made.render(replace(scene, start=(9.0, 9.0), speed=1e-6)))
    unlike = ((video - ground).abs().sum(dim=1) - 0.3).clamp(min=0)
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    total = unlike.sum(dim=(1, 2)).clamp(min=1e-6)
    middles = torch.stack([(unlike * x).sum(dim=(1, 2)) / total, (unlike * y).sum(dim=(1, 2)) / total], dim=1)
    return middles[-1] - middles[0]
