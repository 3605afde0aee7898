"""Recordings of robots, LeRobot's and DROID's: each frame with its state and the action that led to it."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.poses import angles_of, changes_of_poses, rotation_of
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.tools.check import check_collection
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.errors import UserError
from filmstrip.video import write_video

LENGTHS = (9, 6, 11, 7, 8)
FPS = 10
CAMERAS = ("observation.images.top", "observation.images.wrist")


def numbers_of(episode):
    """Every frame of all episodes has a number of its own, which its pixels show."""
    first = sum(LENGTHS[:episode])
    return np.arange(first, first + LENGTHS[episode])


def write_frames(path, numbers, shift=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = torch.from_numpy(6 * numbers + shift).to(torch.uint8)
    write_video(path, levels[:, None, None, None].expand(-1, 3, 24, 32).contiguous(), FPS, crf=4, gop=4)


def rows_of(episode):
    numbers = numbers_of(episode)
    return {
        "action": [[n + 0.5, -1.0] for n in numbers.tolist()],
        "observation.state": [[float(n), 7.0, 3.0] for n in numbers.tolist()],
        "episode_index": [episode] * len(numbers),
        "frame_index": list(range(len(numbers))),
        "task_index": [episode % 2] * len(numbers),
    }


def write_table(path, episodes):
    parts = [rows_of(episode) for episode in episodes]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({key: [row for part in parts for row in part[key]] for key in parts[0]}), path)


def describe(root, version, splits):
    features = {name: {"dtype": "video", "shape": [24, 32, 3]} for name in CAMERAS}
    features |= {
        "action": {"dtype": "float32", "shape": [2]},
        "observation.state": {"dtype": "float32", "shape": [3]},
    }
    info = {"codebase_version": version, "fps": FPS, "features": features, "splits": splits, "chunks_size": 1000}
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))


def write_version_2(root, splits=None):
    describe(root, "v2.1", splits or {"train": f"0:{len(LENGTHS)}"})
    lines = []
    for episode, length in enumerate(LENGTHS):
        write_table(root / f"data/chunk-000/episode_{episode:06d}.parquet", [episode])
        for shift, camera in enumerate(CAMERAS):
            path = root / f"videos/chunk-000/{camera}/episode_{episode:06d}.mp4"
            write_frames(path, numbers_of(episode), 3 * shift)
        lines.append(json.dumps({"episode_index": episode, "length": length, "tasks": [f"task {episode % 2}"]}))
    (root / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")


def write_version_3(root, splits=None):
    """Three episodes in the first video and two in the second; two in the first table and three in the second."""
    describe(root, "v3.0", splits or {"train": f"0:{len(LENGTHS)}"})
    told = []
    for file, episodes in enumerate(((0, 1, 2), (3, 4))):
        for shift, camera in enumerate(CAMERAS):
            numbers = np.concatenate([numbers_of(episode) for episode in episodes])
            write_frames(root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4", numbers, 3 * shift)
        start = 0.0
        for episode in episodes:
            row = {"episode_index": episode, "length": LENGTHS[episode], "tasks": [f"task {episode % 2}"]}
            row |= {"data/chunk_index": 0, "data/file_index": int(episode >= 2)}
            for camera in CAMERAS:
                row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": file}
                row |= {f"videos/{camera}/from_timestamp": start, f"videos/{camera}/to_timestamp": 0.0}
            start += LENGTHS[episode] / FPS
            told.append(row)
    for file, episodes in enumerate(((0, 1), (2, 3, 4))):
        write_table(root / f"data/chunk-000/file-{file:03d}.parquet", episodes)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(told), path)


def write_droid(root, spare_rows=0):
    h5py = pytest.importorskip("h5py")
    for episode, length in enumerate(LENGTHS):
        folder = root / f"LAB/success/2023-07-0{episode + 1}/recording_{episode}"
        named = {"current_task": f"task {episode % 2}"}
        for shift, camera in enumerate(("left", "right", "wrist")):
            write_frames(folder / f"recordings/MP4/{1000 + shift}.mp4", numbers_of(episode), 2 * shift)
            named[f"{camera}_mp4_path"] = f"success/2023/recordings/MP4/{1000 + shift}.mp4"
        (folder / f"metadata_LAB+{episode}.json").write_text(json.dumps(named))
        numbers = numbers_of(episode)[0] + np.arange(length + spare_rows)
        with h5py.File(folder / "trajectory.h5", "w") as file:
            state = np.stack([numbers, *[0.01 * numbers] * 5], axis=1).astype(float)
            file["observation/robot_state/cartesian_position"] = state
            file["observation/robot_state/gripper_position"] = 0.0 * numbers
            file["observation/robot_state/joint_positions"] = np.repeat(numbers[:, None], 7, axis=1).astype(float)
            file["action/cartesian_velocity"] = state + 0.5
            file["action/gripper_velocity"] = 0.0 * numbers
    (root / "LAB/success/2023-07-01/incomplete").mkdir()
    (root / "LAB/success/2023-07-01/incomplete/trajectory.h5").write_bytes(b"")


LAYOUTS = {
    "version 2": (write_version_2, "observation.state"),
    "version 3": (write_version_3, "observation.state"),
    "droid": (write_droid, "pose"),
}


def data_of(root, states, **reads):
    clip = Clip(num_frames=4, stride=1, size=16, short_side=(16, 16))
    return Data(path=root, reads=Clips(states=states, **reads), clip=clip, batch_size=8, num_workers=0)


def batches_of(data, count=6):
    source = open_source(data)
    train = TrainLoader(source, data, seed=0)
    stream = train.stream(0)
    found = [next(stream) for _ in range(count)]
    train.close()
    assert not train.unreadable
    assert all(list(source.kind.specification.faults(batch)) == [] for batch in found)
    return {key: torch.cat([batch[key] for batch in found]) for key in ("video", "action", "state")}


def shown(video, shift=0):
    """The numbers of frames, by their pixels."""
    return ((video.float().mean(dim=(2, 3, 4)) - shift) / 6).round()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_states_and_actions_belong_together(tmp_path, layout):
    write, states = LAYOUTS[layout]
    write(tmp_path)
    batch = batches_of(data_of(tmp_path, states))
    seen = shown(batch["video"])
    assert torch.equal(seen, batch["state"][..., 0])
    starts = {sum(LENGTHS[:episode]) for episode in range(len(LENGTHS))}
    met = set()
    for numbers, actions in zip(seen.tolist(), batch["action"][..., 0].tolist()):
        assert numbers == list(range(int(numbers[0]), int(numbers[0]) + 4))
        # The action that was recorded with a frame leads to the next one; none leads to an episode's first frame.
        assert actions == [0 if n in starts else n - 0.5 for n in numbers]
        met |= starts & set(numbers)
        assert len({max(s for s in starts if s <= n) for n in numbers}) == 1, "a clip leaves its episode"
    assert met


@pytest.mark.parametrize(
    ("layout", "camera", "shift"), [("version 2", "wrist", 3), ("version 3", "wrist", 3), ("droid", "right", 2)]
)
def test_a_camera_can_be_named(tmp_path, layout, camera, shift):
    write, states = LAYOUTS[layout]
    write(tmp_path)
    batch = batches_of(data_of(tmp_path, states, camera=camera), count=1)
    assert torch.equal(shown(batch["video"], shift), batch["state"][..., 0])
    with pytest.raises(UserError, match=r"has no camera 'back'; it has (top, wrist|left, right, wrist)"):
        open_path(tmp_path, camera="back")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_episodes_have_names_tasks_and_splits(tmp_path, layout):
    LAYOUTS[layout][0](tmp_path)
    source = open_path(tmp_path)
    assert len(source.samples) == len({sample.name for sample in source.samples}) == len(LENGTHS)
    assert source.splits == ("test", "train") and source.directional and not source.classes
    assert {sample.text for sample in source.samples} == {("task 0",), ("task 1",)}
    assert source.actions.action_dim == (7 if layout == "droid" else 2)


def test_splits_of_the_dataset_are_its_own(tmp_path):
    write_version_3(tmp_path, {"train": "0:3", "val": "3:5"})
    named = {sample.name: sample.split for sample in open_path(tmp_path).samples}
    assert list(named.values()) == ["train"] * 3 + ["val"] * 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_collections_are_checked_and_prepared_with_their_actions(tmp_path, layout):
    LAYOUTS[layout][0](tmp_path / "raw")
    report = check_collection(tmp_path / "raw", workers=1)
    assert not report.bad, report.text()
    prepare_collection(tmp_path / "raw", tmp_path / "small", short_side=16, workers=1)
    states = {"droid": "pose"}.get(layout, "observation.state")
    batch = batches_of(data_of(tmp_path / "small", states))
    assert torch.equal(shown(batch["video"]), batch["state"][..., 0])


def test_rows_after_the_last_frame_are_not_used(tmp_path):
    write_droid(tmp_path, spare_rows=3)
    batch = batches_of(data_of(tmp_path, "observation/robot_state/joint_positions"))
    assert torch.equal(shown(batch["video"]), batch["state"][..., 0])


def test_changes_of_poses_are_those_of_rotations():
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    poses = np.random.default_rng(0).uniform(-1.2, 1.2, (6, 7))
    assert np.allclose(rotation_of(poses[:, 3:6]), rotation.from_euler("xyz", poses[:, 3:6]).as_matrix())
    assert np.allclose(angles_of(rotation_of(poses[:, 3:6])), poses[:, 3:6])
    turned = [
        (rotation.from_euler("xyz", after) * rotation.from_euler("xyz", before).inv()).as_euler("xyz")
        for before, after in zip(poses[:-1, 3:6], poses[1:, 3:6])
    ]
    expected = np.diff(poses, axis=0)
    expected[:, 3:6] = turned
    assert np.allclose(changes_of_poses(poses), expected)


@pytest.mark.parametrize("changes", ["plain", "pose"])
def test_actions_can_be_changes_of_states_over_skipped_frames(tmp_path, changes):
    write_droid(tmp_path)
    data = data_of(tmp_path, "pose", changes=changes)
    batch = batches_of(replace(data, clip=replace(data.clip, num_frames=3, stride=2)))
    state, action = batch["state"].double().numpy(), batch["action"].double().numpy()
    for poses, found in zip(state, action):
        expected = np.diff(poses, axis=0) if changes == "plain" else changes_of_poses(poses)
        assert np.allclose(found[1:], expected, atol=1e-5)
        assert found[0, 0] in (0, 1, 2)  # over as many frames as there are before the clip, two at most


def test_what_cannot_be_read_is_refused(tmp_path):
    write_version_2(tmp_path / "two")
    info = tmp_path / "two/meta/info.json"
    told = json.loads(info.read_text())
    with pytest.raises(UserError, match=r"no states 'joints'.*it has no column 'joints', but 'action'"):
        open_source(data_of(tmp_path / "two", "joints"))
    with pytest.raises(UserError, match="have 3 numbers: the pose of a gripper is its place"):
        open_source(data_of(tmp_path / "two", "observation.state", changes="pose"))
    with pytest.raises(UserError, match=r"data\.reads\.changes needs states"):
        open_source(data_of(tmp_path / "two", "", changes="plain"))
    for changed, message in (
        ({"codebase_version": "v1.6"}, "LeRobot v1.6, and v2.0, v2.1, v3.0 can be read"),
        ({"features": {"observation.images.top": {"dtype": "image"}}}, "as images in its tables, and no videos"),
        ({"video_path": "../{video_key}.mp4"}, "leads out of the dataset"),
        ({"splits": {"train": "some", "test": "0:1"}}, "the split 'train' is 'some'"),
    ):
        info.write_text(json.dumps(told | changed))
        with pytest.raises(UserError, match=message):
            open_path(tmp_path / "two")
    (tmp_path / "classes/a").mkdir(parents=True)
    write_frames(tmp_path / "classes/a/1.mp4", numbers_of(0))
    with pytest.raises(UserError, match=r"data\.reads\.camera is for robots' data"):
        open_path(tmp_path / "classes", camera="left")


def test_without_h5py_droid_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "trajectory.h5").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'filmstrip\[robots\]'"):
        open_path(tmp_path)
