"""LongVLM against the published code, by stored outputs: merged tokens, and logits of a language model."""

from dataclasses import replace

import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip import systems
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Features, Grid
from filmstrip.systems.language.longvlm import SegmentsConfig

GRID, VOCAB, VIDEO = Grid(20, 16, 16), 40, 39
TEXT = (3, 7, VIDEO, 11, 5, 30, 2)


class Shown(torch.nn.Module):
    """An encoder that has seen the recipe's features, whatever it is shown: class tokens of six layers."""

    width = 48

    def forward(self, video, layers=False):
        tokens = recipe_input("frames", (20, 256, 48)).reshape(1, 5120, 48)
        classes = recipe_input("classes", (6, 20, 48))
        return Features(tokens, GRID, (tokens, tokens), None, tuple(each[None] for each in classes))


@torch.no_grad()
def test_tokens_and_logits_are_the_published_ones():
    kept = stored("longvlm")
    config = replace(
        systems.find("language.longvlm:vicuna_7b").objective,
        encoder=ImageTowerConfig(width=48, depth=1, num_heads=4, num_frames=20, size=16, patch_size=1, pool="class"),
        connector=SegmentsConfig(segments=2),
        decoder=DecoderConfig(vocab_size=VOCAB, width=32, depth=2, num_heads=4, mlp_dim=48, norm_eps=1e-5),
        placeholders=(VIDEO,),
    )
    model = config.build().eval()
    model.load_state_dict(model.from_transformers(kept.weights()))
    model.encoder = Shown()
    tokens, grid = model.encoded(torch.zeros(1, 20, 3, 16, 16))
    segments = tokens[0, 5:].reshape(2, 2560, 48)
    assert kept.error("merged", model.connector.reduced(segments, grid)) < TOLERANCE
    text = torch.tensor([TEXT])
    seen = model.see(torch.zeros(1, 20, 3, 16, 16))
    assert seen.shape[1] == 65
    hidden, _ = model.sequence(seen, text, torch.tensor([len(TEXT)]))
    logits = model.decoder.logits(model.decoder(hidden).hidden)[0]
    assert kept.error("logits", logits[[0, 1, *range(66, 71)]]) < TOLERANCE
