"""Network and schedules of latent FDM (``generation.latent_fdm``) and the published code, by stored outputs."""

from itertools import count

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.models.video_unet import UNetArchitecture
from filmstrip.systems.generation.latent_fdm.network import FlexibleUNet
from filmstrip.systems.generation.latent_fdm.schedules import stages
from filmstrip.weights.keymap import renamed

X, CLEAN, TIME = recipe_input("x", (2, 5, 4, 8, 8)), recipe_input("clean", (2, 5, 4, 8, 8)), torch.tensor([3, 850])
FRAMES = torch.tensor([[0, 3, 4, 9, 40], [2, 11, 30, 5, 8]])
OBSERVED = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0]]).bool()
PADDING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
CONFIG = UNetArchitecture(widths=(32, 64), depth=1, attention_levels=(1,), head_dim=32)
RULES = (
    (r"\.frames\.of_(key|querie|value)s\.distance\.", r".1.temporal_attention.rpe_\1.rpe_net.embed_distances."),
    (r"\.frames\.of_(key|querie|value)s\.time\.", r".1.temporal_attention.rpe_\1.rpe_net.embed_diffusion_time."),
    (r"\.frames\.of_(key|querie|value)s\.out\.", r".1.temporal_attention.rpe_\1.rpe_net.out."),
    (r"\.rpe_(k|q|v)(ey|uerie|alue)\.", r".rpe_\1."),
    (r"\.frames\.out\.", ".1.temporal_attention.proj_out."),
    (r"\.frames\.", ".1.temporal_attention."),
    (r"\.positions\.attention\.out\.", ".1.spatial_attention.proj_out."),
    (r"\.positions\.(attention\.)?", ".1.spatial_attention."),
    (r"\.residual\.norm1\.", ".0.in_layers.0."),
    (r"\.residual\.conv1\.", ".0.in_layers.2."),
    (r"\.residual\.time\.", ".0.emb_layers.1."),
    (r"\.residual\.norm2\.", ".0.out_layers.0."),
    (r"\.residual\.conv2\.", ".0.out_layers.3."),
    (r"\.residual\.shortcut\.", ".0.skip_connection."),
    (r"^time\.fc1\.", "time_embed.0."),
    (r"^time\.fc2\.", "time_embed.2."),
    (r"^norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^middle\.0\.0\.", "middle_block.0."),
    (r"^middle\.0\.1\.", "middle_block.1."),
    (r"^middle\.1\.0\.", "middle_block.2."),
)


def numbered(unet):
    """Their prefix for each of our blocks and changes of resolution, which they number together."""
    prefixes, number = {"conv_in.": "input_blocks.0.0."}, count(1)
    for i, level in enumerate(unet.down):
        prefixes |= {f"down.{i}.blocks.{j}.": f"input_blocks.{next(number)}." for j in range(len(level.blocks))}
        if list(level.resample.parameters()):
            prefixes[f"down.{i}.resample."] = f"input_blocks.{next(number)}.0.op."
    number = count()
    for i, level in enumerate(unet.up):
        prefixes |= {f"up.{i}.blocks.{j}.": f"output_blocks.{next(number)}." for j in range(len(level.blocks))}
        if list(level.resample.parameters()):
            last = f"up.{i}.blocks.{len(level.blocks) - 1}."
            attention = any(name.startswith(f"{last}frames") for name in unet.state_dict())
            prefixes[f"up.{i}.resample."] = f"{prefixes[last]}{1 + attention}.conv."
    return prefixes


def published_name(name, prefixes):
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            # A dot between, which rules of parts begin with.
            return renamed(f"{theirs.removesuffix('.')}.{name.removeprefix(ours)}", RULES)
    return renamed(name, RULES)


def built():
    unet, theirs = FlexibleUNet(CONFIG, channels=4).eval(), stored("latent_fdm").weights()
    prefixes = numbered(unet)
    names = {name: published_name(name, prefixes) for name in unet.state_dict()}
    assert sorted(names.values()) == sorted(theirs)
    unet.load_state_dict({name: theirs[key] for name, key in names.items()})
    return unet


def output(unet, frames=FRAMES, reach=40):
    return unet(
        torch.where(OBSERVED[:, :, None, None, None], CLEAN, X),
        TIME,
        frames=frames,
        observed=OBSERVED,
        reach=reach,
        apart=PADDING[:, :, None] != PADDING[:, None],
    )


@torch.no_grad()
def test_outputs_agree():
    kept, found = stored("latent_fdm"), {}
    unet = built()
    unet.middle[0].register_forward_hook(lambda module, given, out: found.update(attention=out))
    assert kept.error("output", output(unet)) < TOLERANCE
    assert kept.error("attention", found["attention"]) < TOLERANCE


@torch.no_grad()
def test_distances_are_the_same_each_once_or_for_every_pair():
    unet, frames = built(), torch.tensor([[0, 1, 2, 4, 3], [9, 7, 10, 8, 6]])
    found = output(unet, frames, reach=4)
    torch.testing.assert_close(found, output(unet, frames, reach=100), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, output(unet, frames + 50, reach=4), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, output(unet, 2 * frames, reach=8))


def test_norms_agree():
    kept = stored("latent_fdm").eps
    assert set(kept.values()) == {m.eps for m in built().modules() if isinstance(m, torch.nn.GroupNorm)}


@pytest.mark.parametrize("given", [0, 5])
@pytest.mark.parametrize("schedule", ["autoregressive", "long_range", "hierarchy_2"])
def test_schedules_agree(schedule, given):
    flat = []
    for stage in stages(schedule, 30, range(given), max_frames=8, at_once=4):
        flat += [*stage.observed, -1, *stage.latent, -2]
    assert stored("latent_fdm").outputs[f"{schedule}_{given}"].long().tolist() == flat
