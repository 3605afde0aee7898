"""The small editors of video that claims train on edited scenes, and what their edits are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from claims.training import Batch, learn
from filmstrip import systems
from filmstrip.data.edits import MOVING
from filmstrip.data.synthetic.edits import WAYS, EditedScenes, Scene
from filmstrip.data.texts import tokenised
from filmstrip.inference import inference
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from filmstrip.protocols import Tokenizer, VideoEdit, as_float
from filmstrip.text.tokenizers import TextTokenizer, Words

SCENES = EditedScenes(size=32)
TRAIN, BATCH, LENGTH = 1200, 8, 16
TOKENIZER_STEPS, FRAMES = 1500, 16
SAMPLING = DiffusionSampling(steps=10)


@dataclass(frozen=True)
class Edits:
    """Edits of one type."""

    kind: str
    sources: list[Scene]
    edited: list[Scene]

    @classmethod
    def drawn(cls, kind: str, count: int, seed: int) -> Edits:
        """So many edits of scenes that a seed decides."""
        rng = np.random.default_rng((seed, 1))
        sources = [SCENES.scene(rng) for _ in range(count)]
        return cls(kind, sources, [SCENES.edited(scene, kind, rng) for scene in sources])


def rendered(scenes: Sequence[Scene]) -> Tensor:
    """Videos of scenes, ``N T 3 H W`` uint8."""
    return torch.stack([SCENES.render(scene) for scene in scenes])


def depths(scenes: Sequence[Scene]) -> Tensor:
    """True depth maps of scenes, ``N T 1 H W`` float32."""
    return torch.stack([SCENES.depths(scene) for scene in scenes])[:, :, None].float()


@cache
def training_scenes(seed: int) -> tuple[Scene, ...]:
    """Scenes to learn from."""
    rng = np.random.default_rng((seed, 0))
    return tuple(SCENES.scene(rng) for _ in range(TRAIN))


@cache
def training_set(seed: int) -> tuple[Tensor, tuple[str, ...]]:
    """Videos to learn from, and their captions."""
    scenes = training_scenes(seed)
    return rendered(scenes), tuple(scene.caption for scene in scenes)


@cache
def words(seed: int) -> TextTokenizer:
    """The tokenizer of captions."""
    return Words().fit(training_set(seed)[1], ())


@cache
def tokenizer_weights(seed: int) -> dict[str, Tensor]:
    """Weights of ``tokenizers.vae_kl:scenes`` after its steps on single frames."""
    run = systems.find("tokenizers.vae_kl:scenes")
    videos, _ = training_set(seed)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def draw() -> Batch:
        clip = torch.randint(len(videos), (FRAMES,), generator=generator)
        frame = torch.randint(videos.shape[1], (FRAMES,), generator=generator)
        return {"video": videos[clip, frame][:, None]}

    network = learn(
        run.objective.build(),
        draw,
        steps=TOKENIZER_STEPS,
        lr=run.optim.lr,
        weight_decay=0.0,
        warmup=0.1,
        clip_grad=1.0,
    )
    assert isinstance(network, Tokenizer)
    return network.state_dict()


def editor(config: LatentDiffusionConfig, seed: int, *, steps: int, lr: float) -> LatentDiffusion:
    """An editor on the trained tokenizer, after so many steps on captioned scenes."""
    videos, captions = training_set(seed)
    text = words(seed)
    assert text.start is not None
    config = replace(
        config,
        vocab_size=text.size,
        text_length=LENGTH,
        empty_text=(text.start, text.end),
        text_padding=text.pad,
    )
    ids, lengths = tokenised(text, captions, LENGTH)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = config.build()
    own = network.tokenizer.state_dict()
    network.tokenizer.load_state_dict({name: w for name, w in tokenizer_weights(seed).items() if name in own})
    maps = depths(training_scenes(seed)) if network.reads_depth else None

    def draw() -> Batch:
        chosen = torch.randint(len(videos), (BATCH,), generator=generator)
        seeds = torch.randint(2**40, (BATCH,), generator=generator)
        batch = {"video": videos[chosen], "text": ids[chosen], "text_length": lengths[chosen], "seed": seeds}
        return batch if maps is None else batch | {"depth": maps[chosen]}

    return learn(network, draw, steps=steps, lr=lr, weight_decay=0.01, warmup=0.1, clip_grad=1.0)


def edited(
    model: LatentDiffusion,
    edits: Edits,
    seed: int,
    *,
    keeps_motion: bool | None = None,
    true_frames: bool = False,
    **options: Any,
) -> Tensor:
    """Edits by a model, ``N T 3 H W`` in 0..1; motion is kept as the type says, unless it is said otherwise."""
    source, source_length = tokenised(words(seed), [scene.caption for scene in edits.sources], LENGTH)
    text, text_length = tokenised(words(seed), [scene.caption for scene in edits.edited], LENGTH)
    request = VideoEdit(
        video=rendered(edits.sources),
        source_text=source,
        source_length=source_length,
        text=text,
        text_length=text_length,
        seeds=torch.arange(len(source)),
        keeps_motion=edits.kind not in MOVING if keeps_motion is None else keeps_motion,
        frame=rendered(edits.edited)[:, 0] if true_frames else None,
        sampling=SAMPLING,
        **options,
    )
    with inference(model):
        return model.edit(request)


def ways(videos: Tensor, scenes: Sequence[Scene]) -> list[str]:
    """Which way the shape moves in each video ``N T 3 H W``: that of the nearest of the four videos of its scene."""
    names = list(WAYS)
    of_each = torch.stack([rendered([replace(scene, way=way) for way in names]) for scene in scenes])
    errors = (as_float(of_each) - as_float(videos)[:, None]).square().flatten(2).mean(dim=2)
    return [names[i] for i in errors.argmin(dim=1).tolist()]
