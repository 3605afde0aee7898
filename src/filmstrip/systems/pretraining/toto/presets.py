"""Toto's presets: the paper's three sizes, its fine-tuning on more codes a frame, comparators, a ladder of sizes."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.synthetic.motions import Motions
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.systems.pretraining.toto.model import TotoConfig
from filmstrip.systems.pretraining.toto.patches import TotoPatchesConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine

_SIZES = ("num_frames", "size", "width", "depth", "num_heads", "mlp_dim")


def tiny() -> Run:
    """Motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            reads=Clips(images="sequence"),
            clip=Clip(num_frames=4, stride=4, size=32, short_side=(32, 32)),
            batch_size=16,
        ),
        objective=TotoConfig(
            tokenizer=find("tokenizers.dvae:tiny").objective,
            untrained_tokenizer=True,
            num_frames=4,
            size=32,
            width=64,
            depth=4,
            num_heads=4,
            mlp_dim=192,
        ),
        optim=AdamW(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),
        train=Loop(length=Steps(100)),
    )


def _paper(*, lr: float = 3e-4, **network: object) -> Run:
    """16 frames, every fourth, of 128 x 128 pixels, or 16 images; a trillion tokens in batches of 256 sequences.

    The weights are of ImageNet, Ego4D, Kinetics-600 and HowTo100M, if four sources are given in this order.
    """
    return Run(
        data=Data(
            weights=(20.0, 10.0, 10.0, 60.0),
            reads=Clips(images="sequence"),
            clip=Clip(num_frames=16, stride=4, size=128, short_side=(128, 128)),
            augment=Augment(mirror=0.0),
            batch_size=256,
            num_workers=10,
        ),
        objective=TotoConfig(
            tokenizer=find("tokenizers.dvae:dalle").objective,
            num_frames=16,
            size=128,
            **network,
        ),
        optim=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=0.1, schedule=Cosine(warmup=Steps(2_000), final=0.1)),
        train=Loop(length=Steps(950_000), precision="bfloat16", clip_grad=1.0),
    )


def base() -> Run:
    """120 million parameters."""
    return _paper(width=768, depth=12, num_heads=12, mlp_dim=3072)


def large() -> Run:
    """280 million parameters."""
    return _paper(width=1024, depth=16, num_heads=16, mlp_dim=4096)


def one_b() -> Run:
    """1.1 billion parameters."""
    return _paper(width=2048, depth=22, num_heads=16, mlp_dim=5504, lr=2e-4)


def large_in1k() -> Run:
    """The large model on images alone, for 400 epochs of ImageNet-1k: the paper's design choices were made so."""
    run = large()
    return replace(run, data=replace(run.data, weights=()), train=replace(run.train, length=Epochs(400)))


def tiny_patches() -> Run:
    """The tiny transformer on patches of 8 x 8 pixels, which predicts the next one's."""
    run = tiny()
    network = {name: getattr(run.objective, name) for name in _SIZES}
    return replace(run, objective=TotoPatchesConfig(targets="patches", patch_size=8, **network))


def tiny_patches_to_codes() -> Run:
    """The same, which predicts the next patch's code."""
    run = tiny_patches()
    tokenizer = find("tokenizers.dvae:tiny").objective
    coded = replace(run.objective, targets="codes", tokenizer=tokenizer, untrained_tokenizer=True)
    return replace(run, objective=coded)


def large_patches_in1k() -> Run:
    """The large model on patches of 16 x 16 of 256 x 256 pixels, which predicts the next one's, as ``large_in1k``."""
    run = large_in1k()
    clip = replace(run.data.clip, size=256, short_side=(256, 256))
    network = {name: getattr(run.objective, name) for name in _SIZES} | {"size": 256}
    return replace(run, data=replace(run.data, clip=clip), objective=TotoPatchesConfig(targets="patches", **network))


def large_patches_to_codes_in1k() -> Run:
    """The same, which predicts the next patch's code: the dVAE sees frames of half the size."""
    run = large_patches_in1k()
    coded = replace(run.objective, targets="codes", tokenizer=find("tokenizers.dvae:dalle").objective)
    return replace(run, objective=coded)


def large_32() -> Run:
    """The large model on 32 x 32 codes a frame, with another rotary base: to start from one of 16 x 16."""
    run = large()
    clip = replace(run.data.clip, size=256, short_side=(256, 256))
    return replace(
        run,
        data=replace(run.data, clip=clip, batch_size=64),
        objective=replace(run.objective, size=256, rope_base=50_000.0),
    )


def gpt2_280m() -> Run:
    """GPT-2 of about the large model's size (273 M; another layer would be 286 M), with sines and cosines."""
    return _paper(width=1024, depth=21, num_heads=16, mlp_dim=4096, network="gpt2", positions="sincos")


def mamba_290m() -> Run:
    """Mamba of about the large model's size (288 M)."""
    return _paper(width=1024, depth=42, network="mamba")


def _rung(i: int) -> Run:
    """A size of the ladder: width and depth grow alike, with heads of 64 channels; muP from the smallest on.

    16 x 16 codes of 256 x 256 pixels from a VQGAN of 16,384. The rate is the paper's best, 2^-7, of which neither
    batch nor base width is printed: ``filmstrip scale`` looks for it. It stays constant, so that what is measured on
    the way is worth as much as the end of a shorter run.
    """
    vqgan = find("tokenizers.vqgan:kinetics600").objective
    tokenizer = replace(
        vqgan,
        widths=(128, 128, 256, 256, 512),
        attention_levels=(4,),
        codebook=replace(vqgan.codebook, size=16_384),
    )
    run = _paper(width=128 * i, depth=2 * i, num_heads=2 * i, mlp_dim=512 * i, tied=False, base_width=128)
    return replace(
        run,
        data=replace(run.data, clip=replace(run.data.clip, size=256, short_side=(256, 256))),
        objective=replace(run.objective, size=256, tokenizer=tokenizer),
        optim=AdamW(lr=2**-7, betas=(0.9, 0.95), weight_decay=0.1, schedule=Constant(warmup=0.02)),
        train=replace(run.train, length=Steps(100_000)),
    )


def a1() -> Run:
    """0.5 million parameters beside embedding and output layer."""
    return _rung(1)


def a2() -> Run:
    """4.2 million parameters beside embedding and output layer."""
    return _rung(2)


def a3() -> Run:
    """14 million parameters beside embedding and output layer."""
    return _rung(3)


def a4() -> Run:
    """34 million parameters beside embedding and output layer."""
    return _rung(4)


def a5() -> Run:
    """66 million parameters beside embedding and output layer."""
    return _rung(5)


def a6() -> Run:
    """113 million parameters beside embedding and output layer: as wide and deep as ``base``."""
    return _rung(6)
