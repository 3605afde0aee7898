"""Actions planned in a frozen encoder's features lead to what a goal image shows; random ones do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below
from filmstrip.data.config import Clip, Data
from filmstrip.data.sample import Source
from filmstrip.data.synthetic.pushing import RADII, SPEED, draw, simulate
from filmstrip.evals.reaching import Reaching
from filmstrip.runs.evaluation import Subject
from filmstrip.systems.control import vjepa_ac

SIZE, LOOK, ARM, VIDEOS, FRAMES, STEPS = 32, 5, 4.0, 150, 16, 600
PROTOCOL = Reaching(episodes=24, steps=4, num_things=1, look=LOOK, arm_width=ARM)

CLAIM = Claim(
    systems=("control.vjepa_ac",),
    finding=__doc__.strip(),
    paper="Assran et al. 2025, table of robot manipulation: V-JEPA 2-AC reaches 100% of the goals shown by an image, "
    "on two Franka arms that training did not see; Octo 100%, Cosmos 80%.",
    here="150 videos of 16 frames of a thick arm that pushes a thing, on one table of 32 x 32 pixels (`pushing`). "
    "The encoder, two blocks on patches of 16 pixels, is frozen and untrained: predictor and planner are what is "
    "tried. A predictor of two blocks learns for 600 steps what it sees after an action. Goals show the gripper two "
    "to three full actions away; four actions are taken, each planned alone (32 samples, 5 elites, 3 iterations). "
    "Reached is what ends within the gripper's radius. 24 tables.",
    baseline="Actions at random; a predictor that was not trained; and the true way, as the bound.",
    figures={
        "planned": Figure(says="goals reached by planned actions, %", paper="100 (reach, Franka arm)", digits=0),
        "untrained": Figure(says="goals reached with an untrained predictor, %", digits=0),
        "random": Figure(says="goals reached by random actions, %", digits=0),
        "true way": Figure(says="goals reached by the true way, %", digits=0),
        "distance": Figure(says="final distance of planned actions, % of the frame's side"),
        "random distance": Figure(says="final distance of random actions, % of the frame's side"),
        "error": Figure(says="error of the predicted features", digits=3),
        "copied": Figure(says="error of taking a frame's features for the next one's", digits=3),
    },
    expected=(
        above("planned", "random", "planned actions reach more goals than random ones, by 30 points", by=30),
        above("planned", "untrained", "and than those planned with an untrained predictor, by 30 points", by=30),
        below("distance", "random distance", "they end nearer to the goal"),
        below("error", "copied", "the predictor knows more than that nothing changes"),
    ),
    minutes=2.0,
)


def drawn(seed: int) -> dict[str, Tensor]:
    """Frames ``N T 3 H W``, actions and grippers ``N T 2``."""
    found: dict[str, list[Tensor]] = {"video": [], "action": [], "state": []}
    for i in range(VIDEOS):
        rng = np.random.default_rng((seed, i))
        radii = rng.uniform(*RADII, size=PROTOCOL.num_things)
        motion = simulate(rng, radii, FRAMES)
        look = np.random.default_rng(LOOK)
        found["video"].append(draw(look, radii, motion["gripper"], motion["things"], SIZE, ARM))
        found["action"].append(torch.from_numpy(motion["actions"]).float())
        found["state"].append(torch.from_numpy(motion["gripper"]).float())
    return {name: torch.stack(values) for name, values in found.items()}


def measure(seed: int, folder: Path) -> dict[str, float]:
    torch.manual_seed(seed)
    config = replace(
        vjepa_ac.tiny().objective,
        width=32,
        depth=2,
        num_heads=1,
        size=SIZE,
        patch_size=(2, 16, 16),
        num_frames=3,
        predictor_width=96,
        planner=vjepa_ac.CrossEntropy(samples=32, elites=5, iterations=3, horizon=1, state_per_action=SPEED),
    )
    world = config.build().eval()
    untrained = reached(world)
    learn(world, drawn(seed), seed)
    found = reached(world)
    with torch.no_grad():
        new = drawn(seed + 1000)
        errors = world({name: values[:, :3] for name, values in new.items()}).metrics
    return {
        "planned": 100 * found["success_rate"],
        "untrained": 100 * untrained["success_rate"],
        "random": 100 * found["random_success_rate"],
        "true way": 100 * found["true_way_success_rate"],
        "distance": 100 * found["distance"],
        "random distance": 100 * found["random_distance"],
        "error": errors["teacher_forcing"].item(),
        "copied": errors["copy"].item(),
    }


def learn(world: vjepa_ac.VJEPAAC, videos: dict[str, Tensor], seed: int) -> None:
    """Train on random clips of three frames, whose features the frozen encoder makes once."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.cat([world.encoder.frames(video[None]) for video in videos["video"]])
    weights = list(world.predictor.parameters())
    optimiser = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=STEPS, pct_start=0.1)
    world.train()
    for _ in range(STEPS):
        rows = torch.randint(VIDEOS, (32, 1), generator=generator)
        frames = torch.randint(FRAMES - 2, (32, 1), generator=generator) + torch.arange(3)
        optimiser.zero_grad()
        given = (values[rows, frames] for values in (features, videos["action"], videos["state"]))
        world.loss_of(*given).total.backward()
        optimiser.step()
        schedule.step()
    world.eval()


def reached(world: vjepa_ac.VJEPAAC) -> dict[str, float]:
    """What the protocol says of a world model."""
    data = Data(clip=Clip(num_frames=3, size=SIZE))
    nothing = Source(root=Path(), classes=(), samples=())
    subject = Subject(objective=world, source=nothing, data=data, device=torch.device("cpu"))
    return dict(PROTOCOL(subject))
