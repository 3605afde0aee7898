import json

import pytest
from toys import Regression, differing, rows, train, weights

from filmstrip.errors import UserError
from filmstrip.runs.run_folder import what_is_saved
from filmstrip.runs.saved_states import load_saved_weights, newest_state


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


DAMAGE = [
    ("tensors.safetensors", cut),
    ("tensors.safetensors", flip_a_bit),
    ("tensors.safetensors", empty),
    ("tensors.safetensors", remove),
    ("state.json", cut),
    ("state.json", empty),
    ("state.json", remove),
]


@pytest.fixture
def begun(tmp_path):
    """A run that was saved after steps 2, 4 and 6, of which the last two are kept."""
    train(tmp_path / "run", save_every=2)
    assert sorted(path.name for path in (tmp_path / "run" / "state").iterdir()) == ["000000004", "000000006"]
    return tmp_path / "run"


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_state_costs_one_interval(begun, tmp_path, caplog, name, damage):
    damage(begun / "state" / "000000006" / name)
    assert newest_state(begun / "state").values["step"] == 4
    resumed = train(begun, steps=8, save_every=2)
    assert f"000000006/{name}" in caplog.text and "going on from step 4" in caplog.text
    assert sorted(path.name for path in (begun / "state").iterdir()) == ["000000006", "000000008"]
    assert [row["step"] for row in rows(begun)] == [1, 2, 3, 4, 5, 6, 7, 8]
    train(tmp_path / "shorter", save_every=2)
    through = train(tmp_path / "shorter", steps=8, save_every=2)
    # What had been trained with the shorter plan's rates is trained again with the longer one's.
    assert differing(through.state_dict(), resumed.state_dict())
    newest_state(begun / "state")
    assert differing(weights(begun), resumed.state_dict()) == []


def test_resuming_from_the_state_before_gives_what_would_have_come(begun, tmp_path):
    cut(begun / "state" / "000000006" / "tensors.safetensors")
    resumed, through = train(begun, save_every=2), train(tmp_path / "through")
    assert differing(resumed.state_dict(), through.state_dict()) == []
    assert [row["step"] for row in rows(begun)] == [1, 2, 3, 4, 5, 6]


def test_where_all_are_damaged_each_is_named_and_nothing_is_begun_anew(begun):
    for state in (begun / "state").iterdir():
        cut(state / "tensors.safetensors")
    with pytest.raises(UserError, match=r"000000006/tensors\.safetensors is damaged.*000000004/tensors\.safet"):
        train(begun, save_every=2)
    assert len(list((begun / "state").iterdir())) == 2 and len(rows(begun)) == 6


def test_a_state_under_a_wrong_name_is_damaged(begun):
    path = begun / "state" / "000000006" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 600}))
    assert newest_state(begun / "state").values["step"] == 4


def test_a_save_that_fails_leaves_the_states_before(begun, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("filmstrip.runs.saved_states.write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        train(begun, steps=8, save_every=2)
    assert sorted(path.name for path in (begun / "state").iterdir()) == ["000000004", "000000006"]
    assert what_is_saved(begun) == (
        f"{begun} keeps the state after step 6: the same command with --out {begun} goes on"
    )


def test_weights_come_from_the_newest_whole_state(begun):
    fresh = Regression()
    load_saved_weights(fresh, begun / "state")
    assert differing(fresh.state_dict(), weights(begun)) == []
    with pytest.raises(UserError, match="no state yet"):
        load_saved_weights(fresh, begun / "none")
    assert what_is_saved(begun / "none") == f"nothing was saved in {begun / 'none'}"
