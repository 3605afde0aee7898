"""EditedScenes: short videos of one shape on a ground, and edits of them with the true edited videos, as real files.

A scene is a shape of a colour and form on a ground, which moves one way, all of it in some style. An edit changes one
or two of these and keeps the rest, so that the edited video can be drawn: editors are measured without people.

    folder/train/00000.mp4        videos to learn from; their captions are in manifest.csv, as are those of test
    folder/train/00000.depth.npz  where asked for, what is in front in them and in those of test: the shape
    folder/test/00000.mp4         videos to edit
    folder/edits/00000_style.mp4  true edited videos, and their first frames as .png
    folder/edits.csv              video, source_prompt, edit_prompt, type, edited_first_frame, target
    folder/scenes.jsonl           for every video and edit: the scene, and the middle of its shape in every frame
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from filmstrip.bounds import Ascending, Count, CountOrZero, EvenSize, Rate, Seed, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.depth import depth_file, write_depth
from filmstrip.data.edits import TABLE, TYPES
from filmstrip.data.synthetic.generated import generate_once, seeded_paths, write_videos
from filmstrip.data.synthetic.narrated import SAMPLES, draw_shape, outline
from filmstrip.data.synthetic.narration import COLOURS, FORMS, Shape
from filmstrip.data.synthetic.shapes import random_texture
from filmstrip.files import write_csv, write_text
from filmstrip.video.write import write_grid, write_video

VERSION = 1
GROUNDS = {
    "grass": ((30, 90, 35), (50, 120, 50)),
    "sand": ((170, 145, 95), (190, 165, 115)),
    "water": ((25, 60, 120), (40, 85, 150)),
    "night": ((12, 12, 22), (30, 30, 46)),
}
"""The two colours of each ground."""
STYLES = ("", "in black and white", "in sepia", "as a negative")
"""Words of captions for each look; none for the plain one."""
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TRAVEL = 0.36
"""Distance that a shape moves over a whole video at a speed of 1, in sides of the frame."""
RADIUS = 0.14
"""Distance from the middle of a shape to its edge, in sides of the frame."""


@dataclass(frozen=True)
class Scene:
    """What a video shows."""

    colour: str
    form: str
    ground: str
    style: str
    way: str
    speed: float
    """Distance over the whole video, in multiples of :data:`TRAVEL`."""
    start: tuple[float, float]
    """Middle of the shape in the first frame: x and y, in sides of the frame."""
    turn: float
    """Angle of the shape, in turns."""
    texture: int
    """Seed of the ground's texture."""

    @property
    def caption(self) -> str:
        """The scene in words: "a red disc moves left on grass, in sepia"."""
        look = f", {self.style}" if self.style else ""
        return f"a {self.colour} {self.form} moves {self.way} on {self.ground}{look}"

    def path(self, num_frames: int) -> np.ndarray:
        """The middle of the shape in every frame, ``T 2``, in sides of the frame."""
        done = np.linspace(0, 1, num_frames)[:, None]
        return np.array(self.start) + done * np.array(WAYS[self.way]) * TRAVEL * self.speed


@dataclass(frozen=True, kw_only=True)
class EditedScenes(Synthetic):
    """Videos of ``size`` by ``size`` pixels with captions, and edits of those of the test split."""

    num_train: Count = 2000
    num_test: CountOrZero = 48
    """Number of videos to edit, each once in every one of the six ways."""
    num_frames: Count = 8
    fps: Count = 4
    size: EvenSize = 64
    speeds: Annotated[tuple[Rate, Rate], Ascending] = (0.4, 1.0)
    """Range of speeds; captions do not name them."""
    depth: bool = False
    """Whether the videos to learn from and to edit have depth maps beside them."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the files in ``out`` or in the cache, unless they are there; return the folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": True}
        return generate_once(self, name="edits", version=VERSION, notes=notes, write=self._write, out=out)

    def scene(self, rng: np.random.Generator) -> Scene:
        """A random scene, whose shape stays in the frame whichever way it moves."""
        return Scene(
            colour=str(rng.choice(list(COLOURS))),
            form=str(rng.choice(FORMS)),
            ground=str(rng.choice(list(GROUNDS))),
            style=str(rng.choice(STYLES, p=(0.55, 0.15, 0.15, 0.15))),
            way=str(rng.choice(list(WAYS))),
            speed=float(rng.uniform(*self.speeds)),
            start=(float(rng.uniform(0.44, 0.56)), float(rng.uniform(0.44, 0.56))),
            turn=float(rng.uniform(-0.06, 0.06)),
            texture=int(rng.integers(2**31)),
        )

    @staticmethod
    def edited(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
        """A scene after a random edit of a type, all else kept."""

        def other(values: Any, own: str) -> str:
            return str(rng.choice([value for value in values if value != own]))

        changes: dict[str, Any] = {}
        if kind == "style":
            changes["style"] = other(STYLES[1:], scene.style)
        if kind in ("background", "multi_spatial"):
            changes["ground"] = other(GROUNDS, scene.ground)
        if kind in ("object", "multi_spatial", "multi_motion"):
            changes |= {"colour": other(COLOURS, scene.colour), "form": other(FORMS, scene.form)}
        if kind in ("motion", "multi_motion"):
            changes["way"] = other(WAYS, scene.way)
        return replace(scene, **changes)

    def render(self, scene: Scene) -> Tensor:
        """Draw a scene: ``T 3 H W`` uint8."""
        side = self.size * SAMPLES
        rng = np.random.default_rng(scene.texture)
        colours = torch.tensor(GROUNDS[scene.ground], dtype=torch.float32)
        texture = random_texture(rng, self.size, colours, frequency=(2, 4)).round().clamp(0, 255)
        ground = Image.fromarray(rearrange(texture, "c h w -> h w c").to(torch.uint8).numpy())
        ground = ground.resize((side, side), Image.Resampling.NEAREST)
        shape = Shape(scene.colour, scene.form, "medium", 4, "", (0.0, 0.0), scene.turn)
        frames = []
        for x, y in scene.path(self.num_frames):
            frame = ground.copy()
            draw_shape(ImageDraw.Draw(frame), shape, np.array([x, y, scene.turn, RADIUS]), side)
            frames.append(np.asarray(frame.resize((self.size, self.size), Image.Resampling.BOX)))
        video = rearrange(torch.from_numpy(np.stack(frames)), "t h w c -> t c h w")
        return _in_style(video, scene.style)

    def depths(self, scene: Scene) -> Tensor:
        """True depth maps of a scene, ``T H W`` uint8: 255 where its shape is, in front of the ground, which is 0."""
        side = self.size * SAMPLES
        shape = Shape(scene.colour, scene.form, "medium", 4, "", (0.0, 0.0), scene.turn)
        maps = []
        for x, y in scene.path(self.num_frames):
            near = Image.new("L", (side, side))
            corners = outline(shape, np.array([x, y, scene.turn, RADIUS]))
            ImageDraw.Draw(near).polygon([(a * side, b * side) for a, b in corners], fill=255)
            maps.append(np.asarray(near.resize((self.size, self.size), Image.Resampling.BOX)))
        return torch.from_numpy(np.stack(maps))

    def _write(self, folder: Path) -> None:
        jobs = seeded_paths(folder, {"train": self.num_train, "test": self.num_test}, self.seed)
        (folder / "edits").mkdir()
        rows, edits, told = [], [], []
        drawn: list[tuple[Path, Scene, Path | None]] = []
        for path, seed in jobs:
            rng = np.random.default_rng(seed)
            scene, split, name = self.scene(rng), path.parent.name, f"{path.parent.name}/{path.name}"
            rows.append({"path": name, "split": split, "caption": scene.caption})
            told.append(self._described(name, scene))
            drawn.append((path, scene, None))
            for kind in TYPES if split == "test" else ():
                edited = self.edited(scene, kind, rng)
                stem = f"edits/{path.stem}_{kind}"
                edits.append(
                    {
                        "video": name,
                        "source_prompt": scene.caption,
                        "edit_prompt": edited.caption,
                        "type": kind,
                        "edited_first_frame": f"{stem}.png",
                        "target": f"{stem}.mp4",
                    }
                )
                told.append(self._described(f"{stem}.mp4", edited))
                drawn.append((folder / f"{stem}.mp4", edited, folder / f"{stem}.png"))
        write_csv(rows, folder / "manifest.csv")
        if edits:
            write_csv(edits, folder / TABLE)
        write_text("".join(f"{json.dumps(line)}\n" for line in told), folder / "scenes.jsonl")
        write_videos(self._write_one, drawn)

    def _described(self, name: str, scene: Scene) -> dict[str, Any]:
        centres = scene.path(self.num_frames).round(4).tolist()
        return {"path": name, **asdict(scene), "caption": scene.caption, "centres": centres}

    def _write_one(self, path: Path, scene: Scene, first_frame: Path | None) -> None:
        video = self.render(scene)
        write_video(path, video, self.fps, crf=8, gop=4, preset="veryfast")
        if first_frame is not None:
            write_grid(first_frame, [video[:1]], gap=0)
        elif self.depth:
            write_depth(self.depths(scene), depth_file(path))


def _in_style(video: Tensor, style: str) -> Tensor:
    """Frames ``T 3 H W`` uint8 in one of the styles."""
    if not style:
        return video
    x = video.float()
    if style == "as a negative":
        return (255 - x).to(torch.uint8)
    grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    tint = torch.tensor([1.0, 1.0, 1.0] if style == "in black and white" else [1.1, 0.85, 0.6])
    return (grey * tint[:, None, None]).round().clamp(0, 255).to(torch.uint8)
