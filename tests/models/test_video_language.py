"""Language models that see: the order of text and visual tokens, and what depends on what."""

from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.models.video_language import places
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.language import Adaptation, averaged, token_losses

PLACE = 3


@pytest.fixture
def model():
    run = systems.find("language.llava:tiny")
    torch.manual_seed(0)
    return replace(run.objective, placeholders=(PLACE,)).build().eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(10, 100, (3, 7), generator=generator)
    text[0, 0] = text[1, 2] = PLACE  # the third has no visual
    lengths = torch.tensor([7, 6, 4])
    text[torch.arange(7) >= lengths[:, None]] = 0
    learnt = (torch.arange(7) >= lengths[:, None] - 2) & (torch.arange(7) < lengths[:, None])
    video = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return {"video": video, "text": text, "text_length": lengths, "learnt": learnt}


def rows(batch, chosen):
    return {key: value[chosen] for key, value in batch.items()}


def test_visuals_of_any_size_take_their_places():
    is_visual = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    found = places(is_visual, torch.tensor([5, 4, 0]), torch.tensor([[2, 3], [1, 2], [1, 1]]), 5)
    text, first, second = list("abcde"), ["A", "B"], ["X", "Y", "Z"]
    both = text + first + second
    assert "".join(both[i] for i in found.source[0][:8]) == "aABcXYZe"
    assert "".join((text + list("VWW__"))[i] for i in found.source[1][:4]) == "abVd"
    assert found.length.tolist() == [8, 4, 0]
    assert found.start[0].tolist() == [0, 1, 3, 4, 7]


@torch.no_grad()
def test_padding_order_and_other_examples_change_nothing(model, batch):
    def logits(some):
        return model.logits(model.see(some["video"]), some["text"], some["text_length"])

    whole = logits(batch)
    torch.testing.assert_close(logits(rows(batch, [2, 0, 1])), whole[[2, 0, 1]], atol=1e-5, rtol=0)
    for row, length in enumerate(batch["text_length"].tolist()):
        alone = rows(batch, [row])
        alone["text"] = alone["text"][:, :length]
        torch.testing.assert_close(logits(alone)[0], whole[row, : length - 1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_no_logit_depends_on_what_follows(model, batch):
    visual = model.see(batch["video"])
    before = model.logits(visual, batch["text"], batch["text_length"])
    later = batch["text"].clone()
    later[:, 5] = 42
    after = model.logits(visual, later, batch["text_length"])
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[0, 5] - after[0, 5]).abs().max() > 1e-4


@torch.no_grad()
def test_a_frame_counts_from_its_tokens_on(model, batch):
    changed = batch["video"].clone()
    changed[:, 2] = 255 - changed[:, 2]
    seen, other = model.see(batch["video"]), model.see(changed)
    of_frame = seen.shape[1] // 4
    same = (seen == other).all(dim=2).all(dim=0)
    assert same.tolist() == [True] * 2 * of_frame + [False] * of_frame + [True] * of_frame
    logits = [model.logits(v, batch["text"], batch["text_length"]) for v in (seen, other)]
    assert torch.equal(logits[0][1, :1], logits[1][1, :1]) and not torch.equal(logits[0][1, 2], logits[1][1, 2])
    assert torch.equal(logits[0][2], logits[1][2])


def test_answers_of_prompts_of_different_lengths_are_those_of_each_alone(model, batch):
    visual, greedy = model.see(batch["video"]), Sampling(temperature=0.0)
    together = torch.stack(list(model.answer(visual, batch, count=5, sampling=greedy)), dim=1)
    for row, length in enumerate(batch["text_length"].tolist()):
        text = batch["text"][row : row + 1, :length]
        for n in range(5):  # token by token, with nothing remembered
            prompt = {"text": text, "text_length": torch.tensor([length + n])}
            (token,) = model.answer(visual[row : row + 1], prompt, count=1, sampling=greedy)
            assert token == together[row, n]
            text = torch.cat([text, token[:, None]], dim=1)


@torch.no_grad()
def test_scores_are_the_likelihood_of_what_is_learnt(model, batch):
    visual = model.see(batch["video"])
    likelihood, count = model.score(visual, batch)
    assert count.tolist() == [2, 2, 2]
    probabilities = model.logits(visual, batch["text"], batch["text_length"]).log_softmax(dim=-1)
    at, next_one = batch["text_length"] - 3, batch["text"][:, 1:]
    for row in range(3):
        said = [probabilities[row, at[row] + n, next_one[row, at[row] + n]] for n in range(2)]
        torch.testing.assert_close(likelihood[row], sum(said))
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model.score(visual[order], rows(batch, order))[0], likelihood[order])


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({"trains": ("connector",)}, {"connector"}),
        ({"trains": ("connector", "decoder")}, {"connector", "decoder"}),
        ({"trains": ("connector",), "adaptation": Adaptation(layers=("q_proj", "up_proj"))}, {"connector", "lora"}),
        ({"trains": (), "adaptation": Adaptation()}, {"lora"}),
    ],
)
def test_gradients_are_where_the_stage_says_and_all_else_stays(batch, changes, trained):
    run = systems.find("language.llava:tiny")
    torch.manual_seed(0)
    model = replace(run.objective, placeholders=(PLACE,), **changes).build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        model(batch).total.backward()
        optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    kinds = {"lora" if ".lora_" in name else name.partition(".")[0] for name in changed}
    assert kinds == trained
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in model.named_parameters() if p.requires_grad}
    for part in ("encoder", "decoder"):
        if part not in trained and not (part == "decoder" and "lora" in trained):
            assert not any(module.training for module in model.get_submodule(part).modules())


def test_losses_are_of_what_is_learnt_and_averaged_as_stated():
    logits = torch.randn(2, 4, 5)
    target = torch.randint(0, 5, (2, 4))
    learnt = torch.tensor([[True, True, True, False], [False, True, False, False]])
    losses = token_losses(logits, target, learnt)
    expected = -logits.log_softmax(dim=-1).gather(2, target[..., None])[..., 0]
    torch.testing.assert_close(losses[learnt], expected[learnt])
    assert not losses[~learnt].any()
    torch.testing.assert_close(averaged(losses, learnt, "tokens"), expected[learnt].mean())
    examples = torch.stack([expected[0, :3].mean(), expected[1, 1]]).mean()
    torch.testing.assert_close(averaged(losses, learnt, "examples"), examples)


@pytest.mark.parametrize(
    "address",
    [
        "recognition.r2plus1d:tiny_32",
        "recognition.i3d:tiny",
        "recognition.vit:tiny",
        "recognition.hiera:tiny",
        "recognition.video_swin:tiny",
        "recognition.mvit:tiny",
        "recognition.uniformer:tiny",
    ],
)
def test_any_network_can_see_and_its_tokens_are_counted(address):
    """Convolutional networks have no patches, and others merge them: what they make of a clip is counted."""
    run = systems.find(address)
    model = replace(
        systems.find("language.llava:tiny").objective, encoder=run.objective, placeholders=(PLACE,)
    ).build()
    clip = run.data.clip
    video = torch.zeros(1, clip.num_frames, 3, clip.size, clip.size, dtype=torch.uint8)
    with torch.no_grad():
        assert model.see(video).shape[1] == model.num_tokens(clip) > 1


def test_ids_outside_the_embeddings_stand_for_visuals(model, batch):
    """The tokenizer of a published model gives <video> an id behind its own."""
    config = replace(systems.find("language.llava:tiny").objective, placeholders=(5000,))
    other = config.build().eval()
    other.load_state_dict(model.state_dict())
    moved = {**batch, "text": batch["text"].masked_fill(batch["text"] == PLACE, 5000)}
    with torch.no_grad():
        assert torch.equal(other(moved).total, model(batch).total)
