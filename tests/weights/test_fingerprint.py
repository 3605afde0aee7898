from torch import nn

from filmstrip.weights.fingerprint import fingerprint


def test_every_weight_counts():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = fingerprint(module)
    assert before == fingerprint(module)
    module[1].running_mean[1] += 1e-7
    assert fingerprint(module) != before
    assert fingerprint(module, without=["1"]) == fingerprint(module[:1])
