"""Presets: V-JEPA's and V-JEPA 2's trainings, their cooldown, and going on from a released checkpoint."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.knn import KNN
from filmstrip.runs.config import Run
from filmstrip.systems.pretraining.vjepa.model import VJEPAConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine, WarmupStableDecay


def tiny() -> Run:
    """Motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=VJEPAConfig(
            width=96,
            depth=4,
            num_heads=3,
            num_frames=8,
            size=64,
            patch_size=(2, 8, 8),
            predictor_width=48,
            predictor_depth=2,
            predictor_num_heads=3,
            linear_init="glorot",
            num_blocks=(4, 1),
            block_scales=(0.15, 0.6),
            momentum=0.99,
            momentum_steps=100,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.04),
        train=Loop(length=Steps(100)),
        evals=(KNN(),),
    )


def tiny_dense() -> Run:
    """V-JEPA 2.1 on the same motions and images of them: as ``tiny``, with features of two blocks."""
    run = tiny()
    network = replace(
        run.objective,
        positions="paired_rotary",
        position_range=16,
        feature_layers=(2, 4),
        image_tokens=True,
        image_weight=0.5,
        image_num_blocks=(4,),
        context_weight=0.5,
        context_by_distance=True,
        num_mask_tokens=8,
        shared_mask_token=True,
    )
    return replace(run, objective=network)


_BASE = {"width": 768, "depth": 12, "num_heads": 12}
_LARGE = {"width": 1024, "depth": 24, "num_heads": 16}
_HUGE = {"width": 1280, "depth": 32, "num_heads": 16}
_GIANT = {"width": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11}
_GIGANTIC = {"width": 1664, "depth": 48, "num_heads": 26, "mlp_ratio": 64 / 13}
_DENSE_LAYERS = {12: (3, 6, 9, 12), 24: (6, 12, 18, 24), 40: (10, 20, 30, 40), 48: (12, 24, 38, 48)}
"""Blocks whose outputs V-JEPA 2.1 predicts, by the depth of the encoder."""


def _data(*, num_frames: int, stride: int, size: int, batch_size: int) -> Data:
    """Clips as both methods cut them."""
    return Data(
        clip=Clip(
            num_frames=num_frames,
            stride=stride,
            size=size,
            crop="random_resized",
            area=(0.3, 1.0),
            aspect=(0.75, 1.35),
        ),
        augment=Augment(mirror=0.5),
        batch_size=batch_size,
        num_workers=12,
    )


def _videomix(network: VJEPAConfig, *, batch_size: int = 3072) -> Run:
    """V-JEPA: 90,000 steps. Its schedules are made for 112,500 and cut off: ours end where those are then."""
    return Run(
        data=_data(num_frames=16, stride=4, size=network.size, batch_size=batch_size),
        objective=network,
        optim=AdamW(
            lr=6.25e-4,
            weight_decay=0.04,
            weight_decay_end=0.366,
            schedule=Cosine(warmup=Steps(12_000), start=2 / 6.25, final=0.121),
        ),
        train=Loop(length=Steps(90_000), precision="bfloat16", clip_grad=10.0),
    )


def _vjepa(sizes: dict[str, float], size: int = 224) -> VJEPAConfig:
    return VJEPAConfig(
        **sizes,
        num_frames=16,
        size=size,
        positions="sincos",
        predictor_num_heads=16,
        momentum=0.998,
        momentum_end=1.0,
        momentum_steps=112_500,
    )


def large_videomix() -> Run:
    """V-JEPA, ViT-L, on Kinetics-710, Something-Something V2 and HowTo100M: 16 frames of 224 pixels."""
    return _videomix(_vjepa(_LARGE))


def huge_videomix() -> Run:
    """V-JEPA, ViT-H, on the same videos: 16 frames of 224 pixels."""
    return _videomix(_vjepa(_HUGE))


def huge_384_videomix() -> Run:
    """V-JEPA, ViT-H, on the same videos: 16 frames of 384 pixels."""
    return _videomix(_vjepa(_HUGE, 384), batch_size=2400)


def _vjepa2(sizes: dict[str, float], *, num_frames: int = 16, size: int = 256) -> VJEPAConfig:
    """V-JEPA 2's networks, with the mask tokens of the released ones."""
    return VJEPAConfig(
        **sizes,
        num_frames=num_frames,
        size=size,
        num_mask_tokens=10,
        shared_mask_token=True,
        momentum=0.99925,
        momentum_end=0.99925,
    )


def _pretrain(network: VJEPAConfig) -> Run:
    """V-JEPA 2: 16 frames, 4 a second of a video of 30; 12,000 steps of warm-up and 228,000 at one rate."""
    return Run(
        data=_data(num_frames=16, stride=7, size=network.size, batch_size=3072),
        objective=network,
        optim=AdamW(lr=5.25e-4, weight_decay=0.04, schedule=Constant(warmup=Steps(12_000), start=1 / 5.25)),
        train=Loop(length=Steps(240_000), precision="bfloat16", clip_grad=None),
    )


def _cooldown(network: VJEPAConfig) -> Run:
    """The last 12,000 steps: 64 frames, and a learning rate that falls to a fifth (the published line is cut off)."""
    return Run(
        data=_data(num_frames=64, stride=7, size=network.size, batch_size=3072),
        objective=network,
        optim=AdamW(lr=5.25e-4, weight_decay=0.04, schedule=WarmupStableDecay(warmup=0.0, decay=1.0, final=0.2)),
        train=Loop(length=Steps(12_000), precision="bfloat16", clip_grad=None, checkpoint=True),
    )


def large() -> Run:
    """V-JEPA 2, ViT-L: 16 frames of 256 pixels."""
    return _pretrain(_vjepa2(_LARGE))


def huge() -> Run:
    """V-JEPA 2, ViT-H: 16 frames of 256 pixels."""
    return _pretrain(_vjepa2(_HUGE))


def giant() -> Run:
    """V-JEPA 2, ViT-g: 16 frames of 256 pixels."""
    return _pretrain(_vjepa2(_GIANT))


def large_cooldown() -> Run:
    """V-JEPA 2, ViT-L, the cooldown: 64 frames of 256 pixels; ``--init`` the run of ``large``."""
    return _cooldown(_vjepa2(_LARGE, num_frames=64))


def huge_cooldown() -> Run:
    """V-JEPA 2, ViT-H, the cooldown: 64 frames of 256 pixels; ``--init`` the run of ``huge``."""
    return _cooldown(_vjepa2(_HUGE, num_frames=64))


def giant_cooldown() -> Run:
    """V-JEPA 2, ViT-g, the cooldown: 64 frames of 256 pixels; ``--init`` the run of ``giant``."""
    return _cooldown(_vjepa2(_GIANT, num_frames=64))


def giant_384_cooldown() -> Run:
    """V-JEPA 2, ViT-g, the cooldown: 64 frames of 384 pixels; ``--init`` the run of ``giant``."""
    return _cooldown(_vjepa2(_GIANT, num_frames=64, size=384))


def _vjepa2_1(
    sizes: dict[str, float], *, predictor_depth: int = 24, num_frames: int = 16, cooldown: bool = False
) -> VJEPAConfig:
    """V-JEPA 2.1's networks and its losses, with the mask tokens of the released ones."""
    return replace(
        _vjepa2(sizes, num_frames=num_frames),
        predictor_depth=predictor_depth,
        positions="paired_rotary",
        position_range=16,
        feature_layers=_DENSE_LAYERS[sizes["depth"]],
        image_tokens=True,
        image_weight=0.5,
        context_weight=0.5,
        context_warmup=(0, 0) if cooldown else (15_000, 30_000),
        context_by_distance=not cooldown,
        num_mask_tokens=8,
    )


def _pretrain_2_1(network: VJEPAConfig) -> Run:
    """V-JEPA 2.1: 12,000 steps of warm-up and 288,000 at one rate, 16 frames, 4 a second of a video of 30."""
    run = _pretrain(network)
    schedule = Constant(warmup=Steps(12_000), start=1 / 6)
    return replace(
        run, optim=replace(run.optim, lr=6e-4, schedule=schedule), train=replace(run.train, length=Steps(300_000))
    )


def _cooldown_2_1(network: VJEPAConfig) -> Run:
    """The last 12,000 steps: 64 frames, a rate that falls to a fifth, the same weight at every visible position."""
    run = _cooldown(network)
    schedule = WarmupStableDecay(warmup=0.0, decay=1.0, final=0.2013)
    return replace(run, optim=replace(run.optim, lr=6e-4, schedule=schedule))


def base_2_1() -> Run:
    """V-JEPA 2.1, ViT-B: 16 frames of 256 pixels."""
    return _pretrain_2_1(_vjepa2_1(_BASE, predictor_depth=12))


def large_2_1() -> Run:
    """V-JEPA 2.1, ViT-L: 16 frames of 256 pixels."""
    return _pretrain_2_1(_vjepa2_1(_LARGE))


def giant_2_1() -> Run:
    """V-JEPA 2.1, ViT-g: 16 frames of 256 pixels."""
    return _pretrain_2_1(_vjepa2_1(_GIANT))


def gigantic_2_1() -> Run:
    """V-JEPA 2.1, ViT-G: 16 frames of 256 pixels."""
    return _pretrain_2_1(_vjepa2_1(_GIGANTIC))


def base_2_1_cooldown() -> Run:
    """V-JEPA 2.1, ViT-B, the cooldown: 64 frames of 256 pixels; ``--init`` the run of ``base_2_1``."""
    return _cooldown_2_1(_vjepa2_1(_BASE, predictor_depth=12, num_frames=64, cooldown=True))


def large_2_1_cooldown() -> Run:
    """V-JEPA 2.1, ViT-L, the cooldown: 64 frames of 256 pixels; ``--init`` the run of ``large_2_1``."""
    return _cooldown_2_1(_vjepa2_1(_LARGE, num_frames=64, cooldown=True))


def giant_2_1_cooldown() -> Run:
    """V-JEPA 2.1, ViT-g, the cooldown: 64 frames of 256 pixels; ``--init`` the run of ``giant_2_1``."""
    return _cooldown_2_1(_vjepa2_1(_GIANT, num_frames=64, cooldown=True))


def gigantic_2_1_cooldown() -> Run:
    """V-JEPA 2.1, ViT-G, the cooldown: 64 frames of 256 pixels; ``--init`` the run of ``gigantic_2_1``."""
    return _cooldown_2_1(_vjepa2_1(_GIGANTIC, num_frames=64, cooldown=True))


def continue_giant_2_1() -> Run:
    """Going on from V-JEPA 2.1's released ViT-g on videos of one's own: ``--init vjepa2_1_vitg_384.pt``.

    The recipe of ``continue_large``, with V-JEPA 2.1's network and losses on frames of 256 pixels; see there what to
    watch. The released ViT-B and ViT-L were distilled: with ``large_2_1`` or ``base_2_1`` their encoders are read,
    and the predictor, which was trained for another network's features, begins anew.
    """
    run, network = continue_large(), _vjepa2_1(_GIANT, cooldown=True)
    network = replace(network, momentum=run.objective.momentum, momentum_end=run.objective.momentum_end)
    return replace(run, objective=network, train=replace(run.train, checkpoint=True))


def continue_large() -> Run:
    """Going on from V-JEPA 2's released ViT-L on videos of one's own: ``--init vjepa2``, or a file of weights.

    The cooldown's recipe on 16 frames, with a tenth of its learning rate for a smaller batch, and a slower teacher:
    where to begin, not what is best anywhere. Its authors advise to begin with the cooldown, to try learning rates
    and momenta, and to keep momenta above 0.999 for video.

    What to watch: ``loss`` may fall and rise again while features improve; a probe (``filmstrip eval RUN knn``)
    says whether they do. A sudden fall of the loss, with ``target_std`` and ``prediction_std`` well below where they
    began, is a collapse: go back to an earlier state, raise the momentum or lower the learning rate.
    """
    run = _cooldown(_vjepa2(_LARGE))
    return replace(
        run,
        data=_data(num_frames=16, stride=7, size=256, batch_size=128),
        objective=replace(run.objective, momentum=0.9995, momentum_end=0.9995),
        optim=replace(run.optim, lr=5.25e-5, schedule=WarmupStableDecay(warmup=0.05, decay=1.0)),
        train=replace(run.train, length=Steps(3000), checkpoint=False, clip_grad=1.0),
    )
