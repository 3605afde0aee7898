import pytest
import torch

from filmstrip import systems
from filmstrip.measure.complexity import flop_counter
from filmstrip.models.mvit import MViT
from filmstrip.systems.recognition.memvit import MeMViT, MeMViTConfig


def network(memory=2, seed=0, **changes):
    torch.manual_seed(seed)
    options = {"width": 16, "depth": 3, "stages": (1,), "kv_stride": (1, 4, 4), "num_frames": 8, "size": 32}
    options |= {"memory_every": 2, "num_classes": 5}
    encoder = MeMViT(MeMViTConfig(memory=memory, **(options | changes))).eval()
    with torch.no_grad():  # large enough that what is remembered shows
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def video(clips, batch=2, seed=1):
    return torch.rand(batch, 8 * clips, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_clip_sees_as_far_back_as_layers_times_memory():
    encoder = network()
    first = video(6)
    for back, seen in ((1, True), (4, True), (5, False)):  # two layers with two clips of memory
        other = first.clone()
        other[:, 8 * (5 - back) : 8 * (6 - back)] = video(1, seed=9)
        change = (encoder(first).pooled() - encoder(other).pooled()).abs().max()
        assert (change > 1e-5) == seen, f"{back} clips back: {change:.1e}"


@torch.no_grad()
def test_reading_online_is_reading_at_once():
    encoder, whole = network(), video(4)
    memory = encoder.new_memory()
    online = [encoder.read(clip, memory) for clip in whole.split(8, dim=1)]
    features = encoder(whole)
    close(features.tokens, torch.cat([clip.tokens for clip in online], dim=1))
    assert features.grid == (4 * online[0].grid.t, *online[0].grid[1:])
    assert features.tokens.shape[1] == features.grid.t * features.grid.h * features.grid.w
    assert all(len(layer.keys) == 2 for layer in memory.layers)


@torch.no_grad()
def test_another_videos_memory_is_not_seen():
    encoder = network()
    one, two, three = video(1, seed=1), video(1, seed=2), video(1, seed=3)
    memory = encoder.new_memory()
    encoder.read(one, memory)
    read = encoder.read(two, memory, new_video=torch.tensor([True, False]))
    after = encoder.read(three, memory)
    alone, together = encoder.new_memory(), encoder.new_memory()
    encoder.read(one[1:], together)
    for got, clip in ((read, two), (after, three)):
        close(got.tokens[:1], encoder.read(clip[:1], alone).tokens)
        close(got.tokens[1:], encoder.read(clip[1:], together).tokens)


@torch.no_grad()
def test_memory_is_compressed_once_and_kept_before_projection():
    encoder = network()
    memory = encoder.new_memory()
    kept = []
    for clip in video(4).split(8, dim=1):
        encoder.read(clip, memory)
        kept.append(list(memory.layers[0].keys))
    grid = (4, 2, 2)  # what the keys of 4 x 8 x 8 places are pooled to
    full, small = 1 + 4 * 2 * 2, 1 + 1
    assert [[k.shape[1] for k in keys] for keys in kept] == [[full], [small, full], [small, full], [small, full]]
    assert kept[0][0].shape[2] == encoder.blocks[0].norm1.normalized_shape[0] and grid[0] % 4 == 0
    # What was compressed when the second clip came stays as it was when the third did.
    third = encoder.new_memory()
    clips = video(4).split(8, dim=1)
    encoder.read(clips[0], third)
    encoder.read(clips[1], third)
    before = third.layers[0].keys[0].clone()
    assert torch.equal(before, kept[1][0])


def test_gradients_stop_at_what_is_remembered_but_reach_its_compression():
    encoder = network()
    clips = [clip.requires_grad_() for clip in video(2).split(8, dim=1)]
    memory = encoder.new_memory()
    encoder.read(clips[0], memory)
    encoder.read(clips[1], memory).pooled().sum().backward()
    assert clips[0].grad is None and clips[1].grad.abs().sum() > 0
    assert encoder.blocks[0].attention.compress_k.conv.weight.grad.abs().sum() > 0
    assert all(not k.requires_grad for layer in memory.layers for k in layer.keys)


@torch.no_grad()
def test_without_memory_it_is_the_network_without_it():
    encoder = network()
    memory = encoder.new_memory()
    close(encoder.read(video(1), memory).tokens, MViT.forward(encoder, video(1)).tokens)


def test_what_does_not_fit_is_refused():
    encoder = network()
    with pytest.raises(ValueError, match="12 frames are not a whole number of clips of 8"):
        encoder(torch.rand(1, 12, 3, 32, 32))
    memory = encoder.new_memory()
    encoder.read(video(1), memory)
    with pytest.raises(ValueError, match="memory is of 2 videos read side by side, got 3"):
        encoder.read(video(1, batch=3), memory)
    with pytest.raises(ValueError, match="5 temporal positions are not a multiple of the stride 4"):
        network(num_frames=10)


def test_a_clip_costs_what_the_paper_says():
    with torch.device("meta"), torch.no_grad():
        encoder = systems.find("recognition.memvit:base_16x4_k400").objective.build().encoder.eval()
        memory, clip = encoder.new_memory(), torch.empty(1, 16, 3, 224, 224)
        costs = []
        for _ in range(4):
            with flop_counter() as counter:
                encoder.read(clip, memory)
            costs.append(counter.get_total_flops() / 2e9)
    assert costs[0] == pytest.approx(57.4, rel=0.01)
    assert costs[2] == costs[3] == pytest.approx(58.7, rel=0.01)
