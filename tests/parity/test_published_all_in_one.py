"""All-in-one and the published code, by stored outputs."""

import torch
from published import TOLERANCE, recipe_input, recipe_video, stored

from filmstrip.runs.initial_weights import start
from filmstrip.systems.language.all_in_one import AllInOneConfig, rolled
from filmstrip.weights.released import from_published, published_names, to_published

IDS, LENGTHS = recipe_video("text", (2, 9)).long() % 50, torch.tensor([9, 5])
VALID = torch.arange(9) < LENGTHS[:, None]
FOLDED = ("token_type_embeddings.weight", "position_embeddings.weight", "LayerNorm.bias", "transformer.pos_embed")


def built(num_frames=3):
    config = AllInOneConfig(
        width=48,
        depth=2,
        num_heads=4,
        num_frames=num_frames,
        size=32,
        patch_size=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        vocab_size=50,
        max_length=9,
        mask_id=3,
        embed_dim=24,
    )
    return config.build().eval()


def test_tokens_roll_as_published():
    frames = recipe_input("frames", (6, 17, 48)).unflatten(0, (2, 3))
    assert stored("all_in_one").error("rolled", rolled(frames, 0.125)) == 0


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept, objective = stored("all_in_one"), built()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 3, 3, 32, 32))
    frames = objective.encoder.embedded(video)
    both = objective.encoder.read(frames, objective.text(IDS), VALID)
    text = both[:, :9]
    assert kept.error("text", text[VALID]) < TOLERANCE
    assert kept.error("video", both[:, 9:]) < TOLERANCE
    assert kept.error("judged", objective._judge(text)) < TOLERANCE
    assert kept.error("words", objective.words(text, objective.word_weight)[VALID]) < TOLERANCE
    no, yes = objective._judge(text).unbind(dim=1)
    torch.testing.assert_close(objective.match(objective.see(video), IDS, LENGTHS), yes - no)
    alone = objective.encoder.read(None, objective.text(IDS), VALID)
    assert kept.error("text_vector", objective.text_head(alone[:, 0])) < TOLERANCE
    said = objective.encoder(video)
    torch.testing.assert_close(said.summary[:, 0], objective.encoder.read(frames)[:, 0])
    objective.encoder.share = 0.0  # which the published code does to clips that are read alone
    assert kept.error("unrolled_vector", objective.video_head(objective.encoder(video).pooled())) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))


@torch.no_grad()
def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    weights, objective, file = stored("all_in_one").weights(), built(), tmp_path / "all_in_one.ckpt"
    torch.save({"state_dict": weights}, file)
    start(objective, file)
    back = to_published(objective)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], value) for name, value in weights.items() if not name.endswith(FOLDED))
    again = built()
    again.load_state_dict(from_published(back, again), strict=False)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in objective.state_dict().items())


def test_released_weights_start_longer_clips(tmp_path):
    weights, objective, file = stored("all_in_one").weights(), built(5), tmp_path / "all_in_one.ckpt"
    torch.save({"state_dict": weights}, file)
    start(objective, file)
    assert torch.equal(objective.encoder.time_pos_embed[:3], weights["transformer.temporal_embed"][0])
    assert not objective.encoder.time_pos_embed[3:].any()
