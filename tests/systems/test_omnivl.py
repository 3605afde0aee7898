"""OmniVL: images pass without time, classes belong together in the contrast, and images come before videos."""

import csv
import dataclasses
import json

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.protocols import Captioner, DualEncoder, Grid, Grows, Matcher, SharesRows


def built(num_frames=4, **changed):
    run = systems.find("language.omnivl")
    run = run.bound(info_for(run.data.reads)).on_clip(dataclasses.replace(run.data.clip, num_frames=num_frames))
    torch.manual_seed(0)
    return dataclasses.replace(run.objective, **changed).build(), run


@pytest.fixture
def batch():
    run = systems.find("language.omnivl")
    return draw_batch(run.data, size=4, seed=1)


def with_time(objective):
    """With attention over time and positions of frames that say something."""
    torch.manual_seed(1)
    for block in objective.encoder.blocks:
        torch.nn.init.normal_(block.time_fc.weight, std=0.3)
    torch.nn.init.normal_(objective.encoder.time_pos_embed, std=0.3)
    return objective.eval()


def test_it_is_what_commands_ask_for():
    model, _ = built()
    assert all(isinstance(model, kind) for kind in (DualEncoder, Matcher, Captioner, SharesRows, Grows))


@torch.no_grad()
def test_a_clip_that_stands_still_is_an_image(batch):
    objective, _ = built()
    encoder, video = with_time(objective).encoder, batch["video"]
    mixed = torch.cat([video[:2], video[2:, :1].expand(-1, 4, -1, -1, -1)])
    images, clips, both = encoder(video[2:, :1]), encoder(video[:2]), encoder(mixed)
    assert images.grid == Grid(1, 4, 4) and both.grid == Grid(4, 4, 4)
    torch.testing.assert_close(both.summary, torch.cat([clips.summary, images.summary]))
    torch.testing.assert_close(both.tokens[2:], images.tokens.repeat(1, 4, 1))
    torch.testing.assert_close(both.tokens[:2], clips.tokens)
    # Of clips the order of frames tells.
    assert not torch.allclose(encoder(video[:2].flip(1)).summary, clips.summary, atol=1e-3)
    seen = objective.see(mixed)
    judged = objective.match(seen, batch["text"], batch["text_length"])
    alone = objective.match(objective.see(video[2:, :1]), batch["text"][2:], batch["text_length"][2:])
    torch.testing.assert_close(judged[2:], alone)


@torch.no_grad()
def test_an_image_passes_where_tubelets_have_several_frames(batch):
    config = built()[0].config
    vision = dataclasses.replace(config.vision, patch_size=(2, 12, 12))
    encoder = with_time(dataclasses.replace(config, vision=vision).build()).encoder
    image = batch["video"][:, :1]
    one, still = encoder(image), encoder(image.expand(-1, 4, -1, -1, -1))
    assert one.grid == Grid(1, 4, 4) and still.grid == Grid(2, 4, 4)
    torch.testing.assert_close(one.summary, still.summary)


def slow_contrast(rows, keys, scale, row_classes, key_classes):
    """UniVLC of one direction, a row and a key at a time, as the mean over keys of the row's class."""
    total = 0.0
    for row, own in zip(rows, row_classes):
        exponentials = [(scale * float(row @ key)) for key in keys]
        log_all = torch.tensor(exponentials).logsumexp(0)
        matching = [value - log_all for value, other in zip(exponentials, key_classes) if other == own]
        total += -sum(matching) / len(matching)
    return total / len(rows)


def test_classes_belong_together_in_the_contrast(batch):
    objective, _ = built(losses=("contrast",), queue_size=6)
    objective.train()
    classes = torch.tensor([3, -1, 3, -1])
    first = {**batch, "named_class": torch.tensor([5, 3, -1, 5]), "index": torch.tensor([8, 9, 10, 11])}
    objective(first)
    objective.after_step(1)
    told = {**batch, "named_class": classes, "text": batch["text"].flip(1)}  # no text is that of the queue
    with torch.no_grad():
        keys, before = objective._keys(told), objective.queue.keys()
        video, text = objective.encode_video(told["video"]), objective.encode_text(told["text"], told["text_length"])
    rows = ["class 3", 1, "class 3", 3]
    earlier = ["class 5", "class 3", 10, "class 5", None, None]
    scale = objective.log_scale.exp().item()
    want = [
        slow_contrast(own, torch.cat([new, old]), scale, rows, rows + earlier)
        for own, new, old in ((video, keys.text, before.text), (text, keys.video, before.video))
    ]
    torch.testing.assert_close(objective(told).metrics["contrast"], (want[0] + want[1]) / 2)


def test_where_each_matches_its_own_alone_it_is_the_usual_contrast(batch):
    objective, _ = built(losses=("contrast",), queue_size=6)
    objective.train()
    keys, before = objective._keys(batch), objective.queue.keys()
    video, text = objective.encode_video(batch["video"]), objective.encode_text(batch["text"], batch["text_length"])
    want = [
        torch.nn.functional.cross_entropy(objective.similarity(own, torch.cat(others)), torch.arange(4))
        for own, others in ((video, (keys.text, before.text)), (text, (keys.video, before.video)))
    ]
    without = objective(batch).metrics["contrast"]
    torch.testing.assert_close(without, (sum(want) / 2).detach())
    told = {**batch, "named_class": torch.tensor([-1, 0, 1, 2])}  # of classes each of which is there once
    torch.testing.assert_close(objective(told).metrics["contrast"], without)


@pytest.mark.parametrize("losses", [("captioning",), ("contrast",), ("contrast", "matching")])
def test_what_the_losses_do_not_reach_is_not_trained(losses, batch):
    objective, _ = built(losses=losses)
    with_time(objective).train()
    objective(batch).total.backward()
    wanted = {name for name, p in objective.named_parameters() if p.requires_grad}
    trained = {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    # Keys have no bias that matters after the softmax, nor a gradient that is more than rounding.
    assert wanted - trained <= {name for name in wanted if name.endswith("qkv.bias")}
    assert any(name.startswith("generation_decoder.") for name in wanted) == ("captioning" in losses)
    assert any(name.startswith("alignment_decoder.") for name in wanted) == ("matching" in losses)


def test_images_alone_leave_time_as_it_is(batch):
    objective, _ = built(1)
    still = {name for name, p in objective.encoder.named_parameters() if not p.requires_grad}
    assert still == {name for name, _ in objective.encoder.named_parameters() if "time" in name} and still


def test_keys_of_another_run_match_nothing(batch):
    objective, _ = built(losses=("contrast",))
    objective(batch)
    objective.after_step(1)
    assert objective.queue.index[:4].tolist() == batch["index"].tolist()
    objective.started()
    assert (objective.queue.index == -1).all() and (objective.queue.ids == -1).all()


def rows_of(path):
    with (path / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_with_captions_and_labels_first_then_videos_too(tmp_path, synthetic_cache, capsys):
    """On real files: the second stage begins where the first ended, and what both learnt describes and finds."""
    shapes = {"num_train": 16, "num_test": 4, "size": 48, "labels": "form"}
    images = NarratedShapes(**shapes, num_frames=1).generate()
    videos = NarratedShapes(**shapes, num_frames=4).generate()
    labelled = tmp_path / "labelled" / "manifest.csv"
    labelled.parent.mkdir()
    named = [f"{images / row['path']},{row['split']},{row['label']}\n" for row in rows_of(images)]
    labelled.write_text("path,split,label\n" + "".join(named))
    common = ["--data.reads.tokenizer", "bytes", "--data.reads.max-length", "16", "--data.batch-size", "8"]
    common += ["--data.num-workers", "0", "--train.log-every", "1", "--optim.lr", "3e-3"]
    common += ["--data.reads.prompts", "a {}"]
    one, both = tmp_path / "one", tmp_path / "both"
    first = ["train", "language.omnivl", "--data", str(images), str(labelled), "--data.weights", "1", "1"]
    first += ["--data.clip.num-frames", "1", "--train.steps", "16", "--out", str(one), *common]
    assert main(first) == 0
    second = ["train", "language.omnivl", "--data", str(images), str(videos), "--data.weights", "1", "1"]
    second += ["--init", str(one), "--train.steps", "4", "--out", str(both), *common]
    assert main(second) == 0
    told = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    captioning = [line["captioning"] for line in told if "captioning" in line]
    assert captioning[-1] < 0.8 * captioning[0]
    capsys.readouterr()
    assert main(["search", str(both), str(videos), "a red disc", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"][0]["found"]) == 10
    table = tmp_path / "said.csv"
    assert main(["caption", str(both), str(videos / "test"), "--out", str(table), "--max-tokens", "4"]) == 0
    assert table.read_text().count("\n") == 5


def test_a_longer_clip_begins_where_images_ended(batch):
    images, _ = built(1)
    with torch.no_grad():
        for parameter in images.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    longer, _ = built(4)
    longer.load_state_dict(longer.at_own_length(images.state_dict()))
    with torch.no_grad():
        video = batch["video"][:, :1]
        torch.testing.assert_close(longer.eval().encode_video(video), images.eval().encode_video(video))
        torch.testing.assert_close(longer.encode_video(video.expand(-1, 4, -1, -1, -1)), images.encode_video(video))
