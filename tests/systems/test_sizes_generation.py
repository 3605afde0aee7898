"""Generators have the papers' sizes: millions of parameters, or the layers of their tables."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems
from filmstrip.train.lengths import Steps

# Millions of parameters without the frozen tokenizer. TECO's tables give none of MaskViT.
GENERATORS = {
    "generation.teco:dmlab": 169,
    "generation.teco:dmlab_200": 169,
    "generation.teco:dmlab_100": 86,
    "generation.teco:dmlab_50": 195,
    "generation.teco:minecraft": 274,
    # These rows state 261, 257 and 140, which their own layers do not have; see the system's docstring.
    "generation.teco:minecraft_200": 267.2,
    "generation.teco:minecraft_100": 265.5,
    "generation.teco:minecraft_50": 164.5,
    "generation.teco:habitat": 386,
    "generation.teco:kinetics600": 1090,
    # The thesis' tables state 31, 62, 80, 110, 33, 80, 69, 186, 87 and 831, which do not follow from their layers
    # (see the system's docstring): these are the layers, with the blocks of the published code.
    "generation.latent_fdm:dmlab": 26.5,
    "generation.latent_fdm:dmlab_200": 140.2,
    "generation.latent_fdm:dmlab_100": 116.2,
    "generation.latent_fdm:dmlab_50": 363.4,
    "generation.latent_fdm:minecraft": 44.6,
    "generation.latent_fdm:minecraft_200": 116.2,
    "generation.latent_fdm:minecraft_100": 100.6,
    "generation.latent_fdm:minecraft_50": 273.9,
    "generation.latent_fdm:habitat": 138.3,
    "generation.latent_fdm:kinetics600": 1220,
    # Those of the published networks, as built by their authors' code and by diffusers (tests/parity).
    "generation.vdt:large_256": 859.7,
    "generation.vdt:small_256": 41.4,
}
# Tables A.2 of VideoGPT and E.2 of VIPER: codes and how many there are, width, heads, layers, width of feed-forward
# networks, dropout, layers of the residual network that sees first frames, classes, frames from one to the next,
# thousands of steps, learning rate.
BAIR = ((8, 32, 32), 1024, 512, 4, 16, 2048, 0.2, 34, 0, 1, 150, 3e-4)
VIZDOOM = (*BAIR[:7], 0, *BAIR[8:])
UCF = ((4, 32, 32), 1024, 1024, 8, 20, 4096, 0.2, 0, 0, 1, 200, 3e-4)
VIPER = {
    "dmc": ((16, 8, 8), 1024, 256, 8, 8, 1024, 0, 0, 16, 1, 500, 1e-4),
    "atari": ((16, 16, 16), 1024, 512, 8, 8, 2048, 0, 0, 8, 1, 500, 1e-4),
    "rlbench": ((4, 16, 16), 1024, 256, 8, 8, 1024, 0, 0, 0, 4, 500, 1e-4),
    "rlbench_tasks": ((4, 16, 16), 1024, 512, 8, 8, 2048, 0, 0, 34, 4, 500, 1e-4),
}
PRIORS = {
    "generation.videogpt:moving_mnist": ((4, 16, 16), 512, 192, 4, 8, 384, 0.1, 18, 0, 1, 80, 3e-4),
    "generation.videogpt:bair": BAIR,
    "generation.videogpt:bair_actions": BAIR,
    "generation.videogpt:vizdoom": VIZDOOM,
    "generation.videogpt:vizdoom_health": VIZDOOM,
    "generation.videogpt:vizdoom_battle": VIZDOOM,
    "generation.videogpt:ucf101": UCF,
    "generation.videogpt:ucf101_128": UCF,
    "generation.videogpt:tgif": (*UCF[:10], 600, 3e-4),
    "generation.videogpt:viper_dmc": VIPER["dmc"],
    "generation.videogpt:viper_atari": VIPER["atari"],
    "generation.videogpt:viper_rlbench": VIPER["rlbench"],
    "generation.videogpt:viper_rlbench_multi": VIPER["rlbench_tasks"],
    **{f"generation.maskgit:viper_{name}": row for name, row in VIPER.items()},
}


@pytest.mark.parametrize("address", GENERATORS)
def test_generators(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    own = sum(p.numel() for p in objective.parameters()) - sum(p.numel() for p in objective.tokenizer.parameters())
    assert own / 1e6 == pytest.approx(GENERATORS[address], rel=0.01)


def test_lengths_of_latent_fdm():
    lengths = {"dmlab": 300, "habitat": 300, "kinetics600": 100, "minecraft_200": 200, "dmlab_50": 50}
    for preset, frames in lengths.items():
        run = systems.find(f"generation.latent_fdm:{preset}")
        own = run.objective
        assert (run.data.clip.num_frames, own.num_frames, own.max_frames) == (frames, frames, frames)
        with torch.device("meta"):
            fdm = own.build()
        sides = [16 >> i for i, level in enumerate(fdm.unet.down) if level.blocks[0].frames is not None]
        assert sides == {"dmlab_50": [8, 4, 2], "kinetics600": [8, 4, 2]}.get(preset, [4, 2])
        assert fdm.latent_size(own.size, own.size) == (16, 16)


def test_lengths_of_teco():
    lengths = {"dmlab": (300, 0.9), "dmlab_200": (200, 0.85), "dmlab_100": (100, 0.85), "dmlab_50": (50, 0.85)}
    lengths |= {"minecraft": (300, 0.9), "minecraft_200": (200, 0.85), "minecraft_100": (100, 0.25)}
    lengths |= {"minecraft_50": (50, 0.25), "habitat": (300, 0.9), "kinetics600": (100, 0.9)}
    # Tokens of a frame: 8 x 8 codes over the downsampling factor.
    tokens = dict.fromkeys(lengths, 1) | {"dmlab_100": 16, "dmlab_50": 16, "minecraft_200": 4}
    tokens |= {"minecraft_100": 16, "minecraft_50": 16, "habitat": 4, "kinetics600": 16}
    for preset, (frames, dropped) in lengths.items():
        run = systems.find(f"generation.teco:{preset}")
        with torch.device("meta"):
            teco = run.objective.build()
        assert (run.data.clip.num_frames, teco.space.num_frames, teco.drop_loss) == (frames, frames, dropped)
        assert teco.history.per_frame == tokens[preset] and teco.history.num_frames == frames - 1


@pytest.mark.parametrize("address", PRIORS)
def test_priors_have_the_layers_of_their_tables(address):
    codes, vocabulary, width, heads, layers, hidden, dropout, depth, classes, stride, steps, lr = PRIORS[address]
    run = systems.find(address)
    with torch.device("meta"):
        prior = run.objective.build()
    transformer = prior.transformer
    assert tuple(prior.grid) == codes and transformer.codebook_size == vocabulary
    stacks = [transformer.blocks]
    if "maskgit" in address:
        stacks = [[block.inner for block in transformer.blocks], prior.history.blocks]
        known = prior.conditions.known
    else:
        known = prior.vector.known
        assert {block.dropout.p for block in transformer.blocks} == {dropout}
        assert run.objective.attention == ("full" if "viper" in address else "blocks")
        if depth:
            # The table has 512 units; the published code, whose weights these take, has 240.
            assert 2 * sum(run.objective.frames_depths) + 2 == depth and prior.frames.width == 240
        elif not prior.vector.width:
            block = 4 * width * width + width + 2 * width * hidden + width + hidden + 4 * width
            ends = (vocabulary + 1 + sum(codes)) * width + 2 * width + vocabulary * width
            assert sum(p.numel() for p in transformer.parameters()) == layers * block + ends
    for blocks in stacks:
        assert len(blocks) == layers
        assert {block.mlp.fc1.weight.shape for block in blocks} == {(hidden, width)}
        assert {block.attention.num_heads for block in blocks} == {heads}
    assert known.num_classes == classes and run.data.clip.stride == stride
    assert (run.data.batch_size, run.train.length, run.optim.lr) == (32, Steps(1000 * steps), lr)


def test_actions_of_videogpt_are_as_many_values_as_stated():
    # The first frame's action lies before the clip; BAIR's 64 in the table count it.
    for preset, values in {"vizdoom_health": 60, "vizdoom_battle": 315, "bair_actions": 64 - 4}.items():
        with torch.device("meta"):
            prior = systems.find(f"generation.videogpt:{preset}").objective.build()
        assert prior.vector.width == values


def test_every_preset_is_named():
    published = tuple(f"generation.vdt:{name}" for name in ("latte", "ltx", "wan"))  # in tests/parity and tests/runs
    elsewhere = ("generation.maskgit:maskvit", *published)
    assert not unnamed("generation", GENERATORS, PRIORS, elsewhere=elsewhere)
