import pytest
import torch

from filmstrip.models.masked_transformer import WHOLE, MaskedTransformer, MaskedTransformerArchitecture

GRID = (2, 4, 4)


def build(windows=(WHOLE,), depth=2, **changes):
    torch.manual_seed(0)
    sizes = dict(codebook_size=7, grid=GRID, width=24, depth=depth, num_heads=2, code_width=8)
    return MaskedTransformer(MaskedTransformerArchitecture(windows=windows, **sizes | changes)).eval()


def reach(model, place):
    """Which places a code at ``place`` changes, ``t h w``."""
    ids = torch.zeros(1, 32, dtype=torch.int64)
    changed = ids.clone()
    changed[0, place] = 3
    with torch.no_grad():
        return ((model(ids) - model(changed)).abs().amax(dim=2)[0] > 1e-7).view(GRID)


def test_every_place_sees_every_other():
    assert reach(build(), 17).all()


def test_windows_see_themselves_only():
    frame = reach(build(windows=((1, 0, 0),)), 5)
    assert frame[0].all() and not frame[1].any()
    square = reach(build(windows=((0, 2, 2),)), 5)  # row 1, column 1
    assert square[:, :2, :2].all() and square.sum() == 8
    line = reach(build(windows=((1, 1, 0),)), 5)
    assert line[0, 1].all() and line.sum() == 4


def test_windows_that_take_turns_reach_everything():
    assert reach(build(windows=((1, 0, 0), (0, 2, 2))), 17).all()
    assert reach(build(windows=((0, 1, 1), (1, 0, 1), (1, 1, 0)), depth=3), 17).all()


def test_places_differ_and_conditions_count():
    model = build(condition_width=3)
    ids, condition = torch.zeros(1, 32, dtype=torch.int64), torch.zeros(1, 32, 3)
    with torch.no_grad():
        logits = model(ids, condition)
        assert logits.shape == (1, 32, 7)
        assert len(logits[0].unique(dim=0)) == 32
        condition[0, 4] = 1
        assert (model(ids, condition) - logits).abs().max() > 1e-4


def test_only_maskgit_normalises_what_it_embeds():
    ids = torch.zeros(1, 32, dtype=torch.int64)
    logits = {}
    for form in ("maskgit", "teco"):
        model = build(form=form)
        model.project.weight.data.mul_(1000)
        embedded = []
        model.blocks[0].register_forward_pre_hook(lambda block, given, kept=embedded: kept.append(given[0]))
        with torch.no_grad():
            logits[form] = model(ids)
        spread = embedded[0].std(dim=-1, correction=0).mean().item()
        assert spread == pytest.approx(1, abs=0.01) if form == "maskgit" else spread > 2
    assert model.project.bias.shape == (24,) and not model.project.bias.any()
    assert not torch.allclose(*logits.values(), atol=1e-3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"windows of \(0, 3, 3\)"):
        build(windows=((0, 3, 3),))
    with pytest.raises(ValueError, match=r"shape \(B, 32\)"):
        build()(torch.zeros(1, 31, dtype=torch.int64))
