import math

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.train.async_metrics import SHOWN, AsyncMetrics


def readings():
    return AsyncMetrics(torch.device("cpu"), {"loss", "grad_norm"})


def test_means_are_taken_over_what_came_since_the_last_time():
    taken = readings()
    for step, loss in enumerate((1.0, 3.0), 1):
        taken.add(step, {"loss": torch.tensor(loss)}, [])
    taken.add(2, {"grad_norm": torch.tensor(5.0)}, [])
    assert taken.means() == {"loss": 2.0, "grad_norm": 5.0}
    taken.add(3, {"loss": torch.tensor(7.0)}, [])
    assert taken.means() == {"loss": 7.0}


def test_a_metric_may_be_infinite_and_is_then_left_out():
    taken = readings()
    for psnr in (math.inf, 30.0):
        taken.add(1, {"loss": torch.tensor(0.0), "psnr": torch.tensor(psnr), "none": torch.tensor(math.nan)}, [])
    assert taken.means() == {"loss": 0.0, "psnr": 30.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_may_not(value):
    taken = readings()
    taken.add(4, {"loss": torch.tensor(1.0)}, ["fine.mp4"])
    names = [f"clip-{i}.mp4" for i in range(SHOWN + 3)]
    taken.add(5, {"loss": torch.tensor(value), "term": torch.tensor(2.5)}, names)
    with pytest.raises(
        UserError, match=rf"step 5: loss is not finite \(loss {value}, term 2.5\).*clip-7.mp4 and 3 more"
    ):
        taken.check()


def test_reduced_precision_is_read_as_it_is():
    taken = readings()
    taken.add(1, {"loss": torch.tensor(1.5, dtype=torch.bfloat16, requires_grad=True), "count": torch.tensor(3)}, [])
    assert taken.means() == {"loss": 1.5, "count": 3.0}
