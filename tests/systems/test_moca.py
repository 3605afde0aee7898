"""MoCA: its conditions, how they are dropped and guided by, and editing by it."""

import json
from dataclasses import replace

import pytest
import torch
from editors import FEW, built, request

from filmstrip.__main__ import main
from filmstrip.data.edits import FrameEditing
from filmstrip.models.frozen_text import T5Architecture
from filmstrip.objectives.attention_editing import PromptToPrompt, Steps, align
from filmstrip.objectives.frame_editing import edit_frame
from filmstrip.protocols import VideoEdit
from filmstrip.video import write_video


@pytest.fixture(scope="module")
def moca():
    return built("editing.moca:tiny")


def absent(*names):
    return {name: torch.full((2,), name in names) for name in ("image", "text", "motion")}


@torch.no_grad()
def test_flow_is_told_by_hue_and_its_size_by_a_number_alone(moca):
    objective, _ = moca
    generator = torch.Generator().manual_seed(0)
    texture = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 96, 96, generator=generator), 5, 1)[0]
    shown = []
    for shift in (1, 2):
        frames = [texture[:, 10:42, 20 - shift * t : 52 - shift * t] for t in range(4)]  # everything moves right
        video = (255 * torch.stack(frames)).to(torch.uint8)[None]
        pictures, magnitude = objective.motion_of(video)
        assert pictures.shape == (1, 4, 3, 32, 32) and torch.equal(pictures[:, 3], pictures[:, 2])
        shown.append((pictures[0, 1].float().mean(dim=(1, 2)), magnitude.item()))
    (one, slow), (two, fast) = shown
    assert one.argmax() == two.argmax() == 0 and (one - two).abs().max() < 40  # red is to the right
    assert fast / slow == pytest.approx(2, rel=0.3) and slow == pytest.approx(256 / 32, rel=0.3)


@torch.no_grad()
def test_what_is_absent_is_zero_and_not_a_black_image(moca):
    objective, batch = moca
    latents = objective.latents(batch["video"])
    known = objective.known(batch, latents)
    x = torch.randn_like(latents)
    with_all, context, added = objective.inputs(known, x, absent())
    assert with_all.shape[2] == 12 and torch.equal(with_all[:, :, :4], x)
    assert torch.equal(with_all[:, :, 4:8], known.image.expand_as(x)) and torch.equal(
        with_all[:, :, 8:], known.motion
    )
    none, no_context, no_added = objective.inputs(known, x, absent("image", "text", "motion"))
    assert none[:, :, 4:].abs().max() == 0 and torch.equal(no_added, objective.no_magnitude.expand(2, -1))
    assert torch.equal(no_context, objective.read_empty().expand(2, -1, -1)) and not torch.equal(context, no_context)
    assert not torch.equal(added, no_added)
    assert objective.encode(torch.zeros_like(batch["video"])).abs().max() > 0.01


@torch.no_grad()
def test_guidance_of_the_network_is_four_calls_and_ones_are_the_conditional_prediction(moca):
    objective, batch = moca
    latents = objective.latents(batch["video"])
    known, time = objective.known(batch, latents), torch.tensor([300.0, 700.0])

    def call(*names):
        return objective.run(known, latents, time, absent(*names), None)

    scales = {"image": 1.5, "text": 7.5, "motion": 2.0}
    nothing, image, text, every = call("image", "text", "motion"), call("text", "motion"), call("motion"), call()
    expected = nothing + 1.5 * (image - nothing) + 7.5 * (text - image) + 2 * (every - text)
    torch.testing.assert_close(objective.predictor(known, scales)(latents, time), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(objective.predictor(known, dict.fromkeys(scales, 1.0))(latents, time), every)


def test_all_four_calls_of_guidance_are_trained():
    objective, _ = built("editing.moca:tiny")
    seeds = torch.arange(2000)
    dropped = objective.config.dropout.draw(seeds, objective.order, "moca.clip.dropout")
    rows = set(zip(*(dropped[name].tolist() for name in ("image", "text", "motion"))))
    wanted = {(True, True, True), (False, True, True), (False, False, True), (False, False, False)}
    assert wanted <= rows


@torch.no_grad()
def test_the_first_batch_says_how_large_latents_are():
    objective, batch = built("editing.moca:tiny")
    assert objective.latent_scale == 0
    objective.train()
    assert objective.latents(batch["video"]).std().item() == pytest.approx(1, abs=1e-3)
    scale = objective.latent_scale.clone()
    objective.latents(batch["video"] // 2)
    assert torch.equal(objective.latent_scale, scale)
    torch.testing.assert_close(
        objective.pixels(objective.latents(batch["video"])),
        objective.tokenizer.decode(objective.tokenizer.encode(batch["video"])).clamp(0, 1),
        rtol=1e-3,
        atol=1e-3,
    )


def test_padding_of_texts_says_nothing(moca):
    objective, batch = moca
    ids, lengths = batch["text"].clone(), batch["text_length"].clamp(max=6)
    ids[:, 8:] = 5
    other = ids.clone()
    other[:, 8:] = 9
    assert torch.equal(objective.read(ids, lengths), objective.read(other, lengths))


def test_words_are_aligned_as_prompt_to_prompt_does():
    places, has = align([1, 5, 6, 7, 2], [1, 5, 9, 7, 2])  # one word replaced
    assert places.tolist() == [0, 1, 2, 3, 4] and has.tolist() == [1, 1, 1, 1, 1]
    places, has = align([1, 5, 7, 2], [1, 5, 8, 9, 7, 2])  # two added
    assert has.tolist() == [1, 1, 0, 0, 1, 1] and places[[0, 1, 4, 5]].tolist() == [0, 1, 2, 3]


@torch.no_grad()
def test_exchanged_attention_between_equal_clips_changes_nothing():
    objective, batch = built("editing.sdedit:tiny")
    for name, parameter in objective.unet.named_parameters():
        if name.endswith(("qkv.weight", ".q.weight", ".kv.weight")):
            parameter.mul_(20)  # attention of random weights would be even
    latents = objective.latents(batch["video"])
    known = objective.told(objective.read(batch["text"], batch["text_length"]).repeat(2, 1, 1))
    control = PromptToPrompt(Steps(FEW), batch["text"], batch["text"])
    both, time = torch.cat([latents, latents]), torch.full((4,), 500.0)
    plain = objective.predictor(known, {"text": 1.0})(both, time)
    controlled = objective.predictor(known, {"text": 1.0}, lambda given: control)(both, time)
    torch.testing.assert_close(controlled, plain, rtol=1e-4, atol=1e-4)
    mixed = torch.cat([latents, latents.flip(0)])
    plain = objective.predictor(known, {"text": 1.0})(mixed, time)
    controlled = objective.predictor(known, {"text": 1.0}, lambda given: control)(mixed, time)
    torch.testing.assert_close(controlled[:2], plain[:2], rtol=1e-4, atol=1e-4)  # the sources are left as they are
    assert (controlled[2:] - plain[2:]).abs().max() > 0.01


@torch.no_grad()
def test_sdedit_is_guided_as_it_is_asked():
    objective, batch = built("editing.sdedit:tiny")
    strong = FrameEditing(strength=1.0)
    by_run, one, five = (
        objective.edit(request(batch, frame_editing=strong, guidance=guidance))
        for guidance in ({}, {"text": 1.0}, {"text": 5.0})
    )
    assert not torch.equal(one, five)
    own = objective.edit(request(batch, frame_editing=strong, guidance={"text": objective.config.guidance.text}))
    assert torch.equal(by_run, own)


@torch.no_grad()
def test_prompt_to_prompt_with_the_same_words_gives_the_frame_back(moca):
    objective, batch = moca
    same = {"text": batch["text"], "text_length": batch["text_length"]}
    settings = FrameEditing(guidance=1.0, cross_share=1.0, self_share=1.0)
    found = edit_frame(objective, request(batch, frame_editing=settings, **same))
    frame = objective.pixels(objective.latents(batch["video"][:, :1]))[:, 0]
    other = edit_frame(objective, request(batch, frame_editing=FrameEditing(guidance=5.0)))
    assert (found - frame).abs().mean() < (other - frame).abs().mean()
    assert torch.equal(edit_frame(objective, request(batch, frame_by="source")), batch["video"][:, 0] / 255)


@torch.no_grad()
def test_edits_follow_their_seed_and_not_their_batch(moca):
    objective, batch = moca
    frame = batch["video"][:, 0]
    both = objective.edit(request(batch, frame=frame))
    assert both.shape == batch["video"].shape and both.min() >= 0 and both.max() <= 1
    second = {key: value[1:] for key, value in batch.items() if isinstance(value, torch.Tensor)}
    alone = VideoEdit(
        video=second["video"],
        source_text=second["text"],
        source_length=second["text_length"],
        text=batch["text"][:1],
        text_length=batch["text_length"][:1],
        seeds=torch.tensor([6]),
        sampling=FEW,
        frame=frame[1:],
    )
    torch.testing.assert_close(objective.edit(alone)[0], both[1], rtol=1e-3, atol=1e-3)
    still = objective.edit(request(batch, frame=frame, keeps_motion=False))
    moved = objective.edit(replace(request(batch, frame=frame, keeps_motion=False), video=batch["video"].flip(1)))
    assert torch.equal(still, moved) and not torch.allclose(still, both)


def test_a_t5_in_a_folder_encodes_texts_and_a_network_of_images_starts_this_one(tmp_path, moca):
    transformers = pytest.importorskip("transformers")
    sizes = dict(
        d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=32, feed_forward_proj="gated-gelu", vocab_size=128
    )
    theirs = transformers.T5EncoderModel(transformers.T5Config(**sizes, tie_word_embeddings=False)).eval()
    small, batch = built("editing.moca:tiny", text=T5Architecture.of_hub({"model_type": "t5", **sizes}, "it"))
    assert small.config.needs_init() and "text" in small.config.frozen_parts()
    weights = small.text_from_transformers(theirs.state_dict())
    missing, unknown = small.load_state_dict(weights, strict=False)
    assert not unknown and not [name for name in missing if name.startswith("text.")]
    valid = torch.arange(batch["text"].shape[1]) < batch["text_length"][:, None]
    expected = theirs(input_ids=batch["text"], attention_mask=valid.long()).last_hidden_state
    torch.testing.assert_close(small.text(batch["text"], valid), expected)
    assert not any(p.requires_grad for p in small.text.parameters())
    image, _ = built("editing.sdedit:tiny")
    taken = moca[0].taken_from(image)
    assert {"unet.conv_in.weight", "text.embed.weight", "latent_scale"} <= taken.keys()
    assert taken["unet.conv_in.weight"][:, 4:].abs().max() == 0


def test_a_run_edits_a_file_and_bad_words_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    sizes = ["--data.synthetic.num-train", "8", "--data.synthetic.num-test", "0"]
    few = ["--train.steps", "1", "--data.batch-size", "2", "--data.num-workers", "0", "--out", str(tmp_path / "run")]
    assert main(["train", "editing.moca", *sizes, *few]) == 0
    write_video(tmp_path / "boat.mp4", torch.randint(0, 255, (12, 3, 48, 64), dtype=torch.uint8), fps=4)
    words = ["edit", str(tmp_path / "run"), str(tmp_path / "boat.mp4"), "--to", "a red disc moves left on sand"]
    words += ["--steps", "2", "--out", str(tmp_path / "moon.mp4")]
    capsys.readouterr()
    assert main([*words, "--type", "backgroud", "--from", "a red disc"]) == 2
    assert "did you mean 'background'" in capsys.readouterr().err
    assert main([*words, "--type", "background"]) == 2
    assert "--from" in capsys.readouterr().err
    assert main([*words, "--type", "background", "--from", "a red disc moves left on grass"]) == 0
    assert (tmp_path / "moon.mp4").stat().st_size
    more = ["--candidates", "2", "--frame", str(tmp_path / "boat.mp4"), "--guidance.motion", "1.25"]
    assert main([*words, "--type", "object", *more]) == 0
    said = capsys.readouterr().out
    assert "moon_2.mp4: 8 frames, moving as the source; guidance text 11.25, image 1.5, motion 1.25" in said
    write_video(tmp_path / "boat.mp4", torch.zeros(3, 3, 48, 64, dtype=torch.uint8), fps=4)
    assert main([*words, "--type", "motion"]) == 2
    assert "--repeat-last" in capsys.readouterr().err
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["objective"]["flow"] == "dis"
    edits_with_its_network_by_other_methods(tmp_path, words, capsys)


def edits_with_its_network_by_other_methods(tmp_path, words, capsys):
    """Part of the test above, whose run it goes on with."""
    write_video(tmp_path / "boat.mp4", torch.randint(0, 255, (12, 3, 48, 64), dtype=torch.uint8), fps=4)
    kind, source = ["--type", "object"], ["--from", "a red disc moves left on grass"]
    capsys.readouterr()
    assert main([*words, *kind, *source, "--by", "editing.tune_a_video", "--tuning.steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "boat.mp4 first: 1 steps" in said and "guidance text 7.5\n" in said
    assert main([*words, *kind, *source, "--by", "editing.tokenflow", "--frames", "5"]) == 0
    assert "moon.mp4: 5 frames" in capsys.readouterr().out
    for wrong, told in (
        ([*kind, "--by", "editing.masactrl"], '--from "..."'),
        ([*kind, *source, "--by", "editing.moca"], "leave out --by"),
        ([*kind, *source, "--by", "recognition.vit"], "--by takes a system of latent diffusion"),
        ([*kind, *source, "--by", "editing.masactrl", "--tuning.steps", "1"], "leave out --tuning"),
    ):
        assert main([*words, *wrong]) == 2
        assert told in capsys.readouterr().err, wrong


@torch.no_grad()
def test_without_its_conditions_it_is_a_network_of_texts(moca):
    objective, batch = moca
    torch.nn.init.normal_(objective.no_magnitude)
    text, _ = built("editing.sdedit:tiny")
    taken = text.taken_from(objective)
    text.load_state_dict(taken, strict=False)
    x, time = torch.randn(2, 8, 4, 8, 8), torch.tensor([300.0, 700.0])
    known, names = objective.told(objective.read(batch["text"], batch["text_length"])), ("image", "motion")
    expected = objective.run(known, x, time, absent(*names) | {"text": torch.tensor([False, True])}, None)
    told = text.told(text.read(batch["text"], batch["text_length"]))
    found = text.run(told, x, time, {"text": torch.tensor([False, True])}, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
