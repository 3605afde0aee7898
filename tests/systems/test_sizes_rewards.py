"""Video models that reward have the sizes of VIPER's table E.2, and their averaged weights count."""

from dataclasses import replace

import pytest
import torch
from sizes import unnamed

from filmstrip import systems

# Millions of parameters of the blocks by the table's width, layers and feed-forward networks (12 width^2 a layer),
# and the generator's own preset, whose layers tests/systems/test_sizes_generation.py compares with the table.
PRESETS = {
    "rewards.viper:dmc": (6.3, "generation.videogpt:viper_dmc"),
    "rewards.viper:atari": (25.2, "generation.videogpt:viper_atari"),
    "rewards.viper:rlbench": (6.3, "generation.videogpt:viper_rlbench"),
    "rewards.viper:rlbench_multi": (25.2, "generation.videogpt:viper_rlbench_multi"),
    "rewards.viper:dmc_maskgit": (2 * 6.3, "generation.maskgit:viper_dmc"),
}


@pytest.mark.parametrize("address", PRESETS)
def test_sizes(address):
    run = systems.find(address)
    millions, generator = PRESETS[address]
    with torch.device("meta"):
        objective = run.objective.build()
    blocks = [objective.transformer.blocks]
    if "maskgit" in address:
        blocks.append(objective.history.blocks)
    count = sum(
        p.numel() for part in blocks for name, p in part.named_parameters() if p.ndim > 1 and "norm" not in name
    )
    assert count / 1e6 == pytest.approx(millions, rel=0.02)
    assert run.train.ema == 0.9999
    assert replace(run, train=replace(run.train, ema=None)) == systems.find(generator)


# No paper gives these sizes; by hand: convolutions on 64 x 64 pixels to 4 x 4, two recurrent layers, a predictor.
CONVS = sum(9 * before * after + after for before, after in ((3, 32), (32, 64), (64, 128), (128, 256)))
ENCODER = CONVS + (256 * 4 * 4 + 1) * 512
BYOL = 2 * ENCODER + 3 * 512 * (512 + 512 + 2) + 3 * 512 * (1 + 512 + 2) + 2 * (512 + 1) * 512


def test_byol_explore():
    with torch.device("meta"):
        objective = systems.find("rewards.byol_explore:dmc").objective.build()
    assert sum(p.numel() for p in objective.parameters()) == BYOL


def test_every_preset_is_named():
    assert not unnamed(
        "rewards", PRESETS, {"rewards.byol_explore:dmc"}, {"rewards.viper:point", "rewards.viper:point_codes"}
    )
