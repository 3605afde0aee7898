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
from filmstrip.data.edits import FRAMES, MOVING
from filmstrip.data.synthetic.edits import WAYS, EditedScenes, Scene
from filmstrip.data.texts import tokenised
from filmstrip.inference import inference
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from filmstrip.protocols import Tokenizer, VideoEdit, as_float
from filmstrip.runs.editors import with_network
from filmstrip.systems.editing.moca import MoCA
from filmstrip.text.tokenizers import TextTokenizer, Words

SCENES = EditedScenes(size=32)
TRAIN, BATCH, LENGTH = 1200, 8, 16
TOKENIZER_STEPS, STILLS = 1500, 16
EDITOR_STEPS = 800
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
        clip = torch.randint(len(videos), (STILLS,), generator=generator)
        frame = torch.randint(videos.shape[1], (STILLS,), generator=generator)
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


def trained(
    config: LatentDiffusionConfig, seed: int, *, steps: int, lr: float, batch: int = BATCH
) -> LatentDiffusion:
    """A network on the trained tokenizer, after so many steps on captioned scenes."""
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
        chosen = torch.randint(len(videos), (batch,), generator=generator)
        seeds = torch.randint(2**40, (batch,), generator=generator)
        drawn = {"video": videos[chosen], "text": ids[chosen], "text_length": lengths[chosen], "seed": seeds}
        return drawn if maps is None else drawn | {"depth": maps[chosen]}

    return learn(network, draw, steps=steps, lr=lr, weight_decay=0.01, warmup=0.1, clip_grad=1.0)


@cache
def editor(seed: int) -> MoCA:
    """``editing.moca:scenes`` after :data:`EDITOR_STEPS`, which all claims of a process share."""
    run = systems.find("editing.moca:scenes")
    model = trained(run.objective, seed, steps=EDITOR_STEPS, lr=run.optim.lr, batch=run.data.batch_size)
    assert isinstance(model, MoCA)
    return model


def editing_by(system: str, seed: int) -> LatentDiffusion:
    """A method with the editor's network, as ``filmstrip edit --by`` has it: without a first frame and motion."""
    return with_network(systems.find(f"{system}:tiny").objective, editor(seed), "the claims' editor")


def read(scenes: Sequence[Scene], seed: int) -> tuple[Tensor, Tensor]:
    """Captions of scenes as ids, and how many of these there are."""
    return tokenised(words(seed), [scene.caption for scene in scenes], LENGTH)


def batch_of(scenes: Sequence[Scene], seed: int) -> Batch:
    """Scenes as training has them."""
    ids, lengths = read(scenes, seed)
    return {"video": rendered(scenes), "text": ids, "text_length": lengths, "seed": torch.arange(len(scenes))}


def edited(
    model: LatentDiffusion,
    edits: Edits,
    seed: int,
    *,
    keeps_motion: bool | None = None,
    true_frames: bool = False,
    **options: Any,
) -> Tensor:
    """Edits by a model, ``N T 3 H W`` in 0..1; first frames and motion are as the type says, unless it is said
    otherwise."""
    source, source_length = read(edits.sources, seed)
    text, text_length = read(edits.edited, seed)
    request = VideoEdit(
        video=rendered(edits.sources),
        source_text=source,
        source_length=source_length,
        text=text,
        text_length=text_length,
        seeds=torch.arange(len(source)),
        keeps_motion=edits.kind not in MOVING if keeps_motion is None else keeps_motion,
        frame=rendered(edits.edited)[:, 0] if true_frames else None,
        frame_by=FRAMES[edits.kind],
        **{"sampling": SAMPLING} | options,
    )
    with inference(model):
        return model.edit(request)


def from_first_frame(
    model: MoCA, scenes: Sequence[Scene], seed: int, *, pictures: Tensor, magnitude: Tensor | None
) -> Tensor:
    """Videos ``N T 3 H W`` in 0..1 of scenes by their first frames, captions and pictures of the flow, without
    guidance; without a ``magnitude`` the network is told what it is where motion is dropped."""
    batch = batch_of(scenes, seed)
    with inference(model):
        latents = model.latents(batch["video"])
        known = replace(model.known(batch, latents), motion=model.encode(pictures) * model.latent_scale)
        known = replace(known, magnitude=magnitude)
        noise = model.noise(batch["seed"], latents.shape[1], model.latent_size(*batch["video"].shape[-2:]))
        return model.pixels(model.denoise(known, noise, dict.fromkeys(model.order, 1.0), SAMPLING))


def ways(videos: Tensor, scenes: Sequence[Scene]) -> list[str]:
    """Which way the shape moves in each video ``N T 3 H W``: that of the nearest of the four videos of its scene."""
    names = list(WAYS)
    of_each = torch.stack([rendered([replace(scene, way=way) for way in names]) for scene in scenes])
    errors = (as_float(of_each) - as_float(videos)[:, None]).square().flatten(2).mean(dim=2)
    return [names[i] for i in errors.argmin(dim=1).tolist()]
