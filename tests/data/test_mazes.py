"""Mazes: what is drawn is what one would see, actions lead from pose to pose, and the walk comes back."""

import math

import numpy as np
import pytest
import torch
from einops import einsum

from filmstrip.data.augment.colour import GREY
from filmstrip.data.config import Clip, Data
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import open_path
from filmstrip.data.synthetic.mazes import (
    FORWARD,
    LEFT,
    RIGHT,
    ROOM,
    STEP,
    TURN,
    Mazes,
    distances,
    furnish,
    random_maze,
    walk,
)
from filmstrip.data.synthetic.raycast import World, cast, render
from filmstrip.errors import UserError
from filmstrip.video.decode import read_video

RED, GREEN, BLUE, WHITE, BLACK = [*torch.eye(3).tolist(), [1.0] * 3, [0.0] * 3]


def box(width: int = 5, height: int = 3) -> World:
    """An empty room with a red east wall, a green west wall, and blue ones; floor white, sky black."""
    solid = np.ones((height + 2, width + 2), bool)
    solid[1:-1, 1:-1] = False
    faces = np.full((*solid.shape, 4), 2)
    faces[..., 0], faces[..., 1] = 0, 1  # what faces west is the east wall
    return World(
        solid=solid,
        faces=faces,
        floor=np.full(solid.shape, 3),
        textures=torch.tensor([RED, GREEN, BLUE, WHITE])[:, :, None, None].expand(-1, -1, 8, 8),
        sky=torch.tensor([BLACK, BLACK]),
    )


def test_rays_meet_the_first_wall_where_geometry_says():
    world = box()
    angle = np.array([0.0, math.pi, math.pi / 2, -math.pi / 2, math.atan2(1.5, 3.5) - 1e-6])
    start = np.full(5, 2.5), np.full(5, 2.5)
    distance, face = cast(world, *start, np.cos(angle), np.sin(angle))
    assert np.allclose(distance, [3.5, 1.5, 1.5, 1.5, math.hypot(3.5, 1.5)], atol=1e-4)
    assert (face % 4).tolist() == [0, 1, 2, 3, 0]


def test_a_wall_is_as_high_as_its_distance_says():
    for x in (1.5, 3.5, 5.5):
        frame = render(box(), np.array([[x, 2.5, 0.0]]), 64)[0]
        red = (frame[0, :, 32] > 60) & (frame[2, :, 32] < 30)
        assert abs(int(red.sum()) - min(64, 32 / (6 - x))) <= 1.5
        assert (frame[:, 0, 32] == 0).all() or x == 5.5
        assert (frame[:, 63, 32] > 60).all() or x == 5.5


def test_turning_right_moves_what_is_ahead_to_the_left():
    def column(heading: float, channel: int) -> float:
        """Where one sees a colour, -1 left to 1 right."""
        row = render(box(), np.array([[3.5, 2.5, heading]]), 64)[0, :, 32].float()
        weight = (row[channel] - row.sum(dim=0) / 2).clamp(min=0)
        return float((weight * torch.linspace(-1, 1, 64)).sum() / weight.sum())

    assert abs(column(0.0, 0)) < 0.05
    assert column(TURN, 0) < -0.1 < 0.1 < column(-TURN, 0)
    assert abs(column(math.pi, 1)) < 0.05


def test_a_view_depends_on_its_pose_alone():
    config = Mazes(num_frames=20, size=32)
    rng = np.random.default_rng(3)
    solid = random_maze(rng, config.rooms)
    world, (_, poses) = furnish(rng, solid), walk(rng, solid, 20, 0.0)
    assert torch.equal(render(world, poses, 32)[7:9], render(world, poses[7:9], 32))


@pytest.mark.parametrize("rooms", [2, 4, 6])
def test_every_cell_of_a_maze_can_be_reached_and_there_are_ways_round(rooms):
    for seed in range(5):
        solid = random_maze(np.random.default_rng(seed), rooms)
        assert solid.shape == (2 * rooms + 1,) * 2
        assert solid[[0, -1]].all() and solid[:, [0, -1]].all() and not solid[1::2, 1::2].any()
        start = tuple(np.argwhere(~solid)[0])
        assert len(distances(solid, start)) == (~solid).sum()
        ways = (~solid).sum() - rooms**2
        assert ways >= rooms**2 - 1 + (rooms > 2)


def test_actions_lead_from_pose_to_pose_and_never_into_walls():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        solid = random_maze(rng, 4)
        actions, poses = walk(rng, solid, 300, 0.05)
        turned = (np.diff(poses[:, 2]) + math.pi) % (2 * math.pi) - math.pi
        expected = np.select([actions == LEFT, actions == RIGHT], [-TURN, TURN], 0.0)[1:]
        assert np.allclose(turned, expected, atol=1e-9)
        moved = np.hypot(*np.diff(poses[:, :2], axis=0).T)
        assert (moved[actions[1:] != FORWARD] == 0).all() and moved.max() <= STEP + 1e-9
        assert (moved[actions[1:] == FORWARD] > 0).mean() > 0.95
        for dx, dy in ((ROOM, 0), (-ROOM, 0), (0, ROOM), (0, -ROOM)):
            near = poses[:, :2] + 0.99 * np.array([dx, dy])
            assert not solid[near[:, 1].astype(int), near[:, 0].astype(int)].any()


def test_the_walk_sees_the_whole_maze_and_comes_back():
    places, poses_again = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        solid = random_maze(rng, 4)
        _, poses = walk(rng, solid, 300, 0.05)
        seen = {(int(y), int(x)) for x, y, _ in poses}
        assert len(seen) > 0.7 * (~solid).sum()
        late, early = poses[150:, None], poses[None, :100]
        near = np.hypot(late[..., 0] - early[..., 0], late[..., 1] - early[..., 1]) < 0.5
        alike = np.abs((late[..., 2] - early[..., 2] + math.pi) % (2 * math.pi) - math.pi) < TURN
        places.append(near.any(axis=1).mean())
        poses_again.append((near & alike).any(axis=1).mean())
    # Half of the frames after the middle show a place of the first third again, and a tenth the same view of it.
    assert np.mean(places) > 0.4 and np.mean(poses_again) > 0.1


def test_the_set_is_real_files_with_actions(tmp_path):
    config = Mazes(num_train=3, num_test=1, num_frames=24, size=32, rooms=2)
    folder = config.generate(tmp_path / "out")
    source = open_path(folder)
    info = source.info("train")
    assert (info.num_train, info.num_actions, info.action_names) == (3, 3, ("forward", "left", "right"))
    assert info.directional and len(source.split("test")) == 1
    data = Data(clip=Clip(num_frames=24, stride=1, size=32, short_side=(32, 32)), batch_size=3, num_workers=0)
    batch = next(TrainLoader(source, data, seed=0).stream(0))
    for name, action in zip(batch["name"], batch["action"]):
        with np.load(folder / name.replace(".mp4", ".actions.npz")) as stored:
            assert action.tolist() == stored["actions"].tolist()
            assert stored["poses"].shape == (24, 3)
    drawn, actions, _ = config.render(np.random.default_rng((0, 0, 1)))
    shown = read_video(folder / "train/00001.mp4")
    assert shown.video.shape == (24, 3, 32, 32)
    grey = torch.tensor(GREY)
    assert einsum(shown.video - drawn.float(), grey, "t c h w, c -> t h w").square().mean().sqrt() < 8
    again = config.render(np.random.default_rng((0, 0, 1)))
    assert torch.equal(again[0], drawn) and (again[1] == actions).all()
    assert not torch.equal(config.render(np.random.default_rng((0, 1, 1)))[0], drawn)


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"rooms": 1}, {"size": 31}, {"noise": 2.0}, {"seed": -1}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UserError, match="expected"):
        Mazes(**wrong)


def test_who_looks_round_sees_everything_again_after_a_turn():
    video, actions, poses = Mazes(num_frames=40, size=16, look_round=True, noise=0.0).render(np.random.default_rng(3))
    assert len(set(actions.tolist())) == 1 and actions[0] in (LEFT, RIGHT)
    assert (poses[:, :2] == poses[0, :2]).all()
    turn = round(2 * math.pi / TURN)
    assert (video[turn:].int() - video[:-turn].int()).abs().max() <= 2
    assert (video[turn // 2 :].int() - video[: -(turn // 2)].int()).abs().float().mean() > 5
