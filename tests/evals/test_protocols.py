import pytest

from filmstrip import evals
from filmstrip.errors import UserError
from filmstrip.runs.config import from_json, to_json


def test_protocols_are_found_by_file_name_and_survive_json():
    known = evals.protocols()
    probes = {"linear_probe", "attentive_probe", "knn"}
    generation = {"reconstruction", "generation", "video_prediction", "likelihood"}
    assert {"multi_view", "throughput"} | probes | generation <= set(known)
    for cls in known.values():
        assert from_json(to_json(cls())) == cls()


def test_a_wrong_name_is_answered_with_the_nearest():
    assert evals.protocol("knn").__name__ == "KNN"
    with pytest.raises(UserError, match="did you mean 'linear_probe'"):
        evals.protocol("linear-probe")
    with pytest.raises(UserError, match=r"there are .*multi_view"):
        evals.protocol("zzz")
