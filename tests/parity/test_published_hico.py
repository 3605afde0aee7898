"""Merging of ``language.internvideo2_5`` and the published code, by stored outputs."""

import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.nn.token_merging import merged
from filmstrip.protocols import Grid
from filmstrip.systems.language.internvideo2_5 import CompressionConfig


@torch.no_grad()
def test_merged_tokens_are_the_published_ones():
    kept, tokens = stored("hico"), recipe_input("tokens", (8, 64, 24))
    assert kept.error("step", merged(tokens, 50, num_heads=4).tokens) < TOLERANCE
    assert kept.error("merged", merged(tokens, 9, num_heads=4).tokens) < TOLERANCE
    connector = CompressionConfig(steps=4, per_step=16, num_heads=4).build(24, 20).eval()
    connector.load_state_dict({k.replace("mlp.", "layers."): v for k, v in kept.weights().items()})
    clip = connector(tokens.reshape(1, 512, 24), Grid(8, 8, 8))
    assert kept.error("clip", clip.reshape(2, 64, 20)) < TOLERANCE
