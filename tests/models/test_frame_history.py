import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.conditions import FrameConditions, Known
from filmstrip.models.frame_history import FrameHistory, FrameHistoryArchitecture
from filmstrip.protocols import Condition

FRAMES, GIVEN = torch.randn(2, 6, 3, 4, 4), torch.randn(2, 6, 2)


def history(stride=2, **changes):
    torch.manual_seed(0)
    sizes = dict(input_dim=3, given_dim=2, output_dim=5, size=(4, 4), num_frames=6, width=16, depth=2, num_heads=2)
    return FrameHistory(FrameHistoryArchitecture(stride=stride, **sizes | changes)).eval()


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_frame_by_frame_with_a_cache_gives_the_same(stride):
    model = history(stride)
    with torch.no_grad():
        whole = model(FRAMES, GIVEN)
        cache = model.new_cache(2, 6)
        parts = [model(FRAMES[:, :3], GIVEN[:, :3], cache=cache)]
        parts += [model(FRAMES[:, t : t + 1], GIVEN[:, t : t + 1], cache=cache) for t in range(3, 6)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole)
        assert whole.shape == (2, 6, (4 // stride) ** 2, 16)
        assert model.spread(whole).shape == (2, 6, 5, 4, 4)


def test_the_future_is_not_seen_and_all_of_the_past_is():
    model = history()
    changed = FRAMES.clone()
    changed[:, 2, :, 3, 3] += 1
    with torch.no_grad():
        moved = (model(FRAMES, GIVEN) - model(changed, GIVEN)).abs().amax(dim=(0, 3))
        assert (moved[:2] == 0).all() and (moved[2:] > 1e-6).all()
        led = GIVEN.clone()
        led[:, 4] += 1
        moved = (model(FRAMES, GIVEN) - model(FRAMES, led)).abs().amax(dim=(0, 2, 3))
        assert (moved[:4] == 0).all() and (moved[4:] > 1e-6).all()


def test_every_frame_sees_what_starts_the_sequence():
    model = history()
    with torch.no_grad():
        before = model(FRAMES, GIVEN)
        model.start.normal_()
        assert ((model(FRAMES, GIVEN) - before).abs().amax(dim=(0, 3)) > 1e-6).all()


def test_more_frames_than_positions_and_strides_that_do_not_divide():
    with pytest.raises(ValueError, match="positions for 6 frames, 7 were given"):
        history()(torch.zeros(1, 7, 3, 4, 4), torch.zeros(1, 7, 2))
    with pytest.raises(ValueError, match="stride of 3"):
        history(stride=3)


def conditions(**changes):
    torch.manual_seed(0)
    sizes = dict(num_classes=5, num_actions=6, action_dim=0)
    return FrameConditions(Known(**(sizes | changes)), label_width=4, action_width=3)


class TestConditions:
    label, action = torch.tensor([1, 4]), torch.tensor([[0, 1, 2], [3, 4, 5]])

    def test_labels_are_everywhere_and_the_first_action_is_unknown(self):
        model = conditions()
        given = model(2, 3, label=self.label, action=self.action)
        assert given.shape == (2, 3, model.width) and model.width == 7
        assert torch.equal(given[:, 0, :4], given[:, 2, :4]) and not torch.equal(given[0, :, :4], given[1, :, :4])
        assert torch.equal(given[:, 0, 4:], model.no_action.expand(2, 3))
        assert torch.equal(given[1, 1, 4:], model.action.weight[4])

    def test_hidden_is_the_same_as_not_given(self):
        model = conditions()
        hidden = model(2, 3, label=self.label, action=self.action, unknown=torch.tensor([True, False]))
        none = model(2, 3, label=None, action=None)
        assert torch.equal(hidden[0], none[0]) and not torch.equal(hidden[1], none[1])

    def test_vectors_as_actions(self):
        model = conditions(num_classes=0, num_actions=0, action_dim=2)
        assert model(2, 3, label=None, action=torch.ones(2, 3, 2)).shape == (2, 3, 3)
        with pytest.raises(UserError, match=r"2 values for each of 3 frames .* shape \(2, 3, 2\) are needed"):
            model(2, 3, label=None, action=self.action)

    def test_no_conditions_are_nothing(self):
        assert conditions(num_classes=0, num_actions=0)(2, 3, label=None, action=None) is None

    def test_wrong_ones_are_refused(self):
        model = conditions()
        with pytest.raises(UserError, match=r"shape \(2, 4\)"):
            model(2, 4, label=self.label, action=self.action)
        with pytest.raises(UserError, match="2 class numbers"):
            model(2, 3, label=self.label[:1], action=None)
        with pytest.raises(UserError, match=r"labels are numbers below 5; 1\.\.5"):
            model.check(Condition(batch_size=2, num_frames=3, label=self.label + torch.tensor([0, 1])), optional=True)
        with pytest.raises(UserError, match="knows no actions"):
            conditions(num_actions=0).check(Condition(batch_size=2, num_frames=3, action=self.action), optional=True)

    def test_missing_ones_are_refused_unless_training_hid_them(self):
        nothing = Condition(batch_size=2, num_frames=3)
        conditions().check(nothing, optional=True)
        with pytest.raises(UserError, match="needs labels"):
            conditions().check(nothing, optional=False)
