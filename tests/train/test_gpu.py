import pytest
import torch
from toys import Regression, Stream, differing, losses, train

from filmstrip.errors import UserError
from filmstrip.train.async_metrics import AsyncMetrics

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_a_gpu_begins_as_on_the_cpu(tmp_path, precision):
    torch.manual_seed(0)
    expected = Regression()(next(Stream().stream(0))).total.item()
    objective = train(tmp_path, precision=precision)
    assert {(p.device.type, p.dtype) for p in objective.parameters()} == {("cuda", torch.float32)}
    assert all(p.isfinite().all() for p in objective.parameters())
    assert losses(tmp_path)[0] == pytest.approx(expected, rel=1e-4 if precision == "float32" else 2e-2)


def test_resuming_on_a_gpu_goes_on(tmp_path):
    class Stop(Exception):
        pass

    def stop(step):
        if step == 5:
            raise Stop

    train(tmp_path / "through", save_every=2)
    with pytest.raises(Stop):
        train(tmp_path / "broken", save_every=2, before=stop)
    train(tmp_path / "broken", save_every=2)
    assert losses(tmp_path / "broken") == pytest.approx(losses(tmp_path / "through"), rel=1e-4)


def test_values_are_read_without_waiting_for_the_device():
    taken = AsyncMetrics(CUDA, {"loss"})
    torch.cuda._sleep(2_000_000_000)
    taken.add(1, {"loss": torch.tensor(float("nan"), device=CUDA)}, ["bad.mp4"])
    taken.check()  # not there yet
    with pytest.raises(UserError, match=r"step 1: loss is not finite .*bad\.mp4"):
        taken.check(wait=True)


def test_the_average_lives_on_the_device(tmp_path):
    first = train(tmp_path / "a", ema=0.9)
    assert {p.device.type for p in first.parameters()} == {"cuda"}
    again = train(tmp_path / "a", ema=0.9)
    assert differing(first.state_dict(), again.state_dict()) == []
