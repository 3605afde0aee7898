"""Rewards of films, drawn under and over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from filmstrip.files import check_table_name, write_rows
from filmstrip.rl.envs.painting import Canvas
from filmstrip.rl.rewards import Rewards, VideoReward
from filmstrip.video.decode import open_video, read_video
from filmstrip.video.write import write_video

if TYPE_CHECKING:
    from filmstrip.commands.reward import Reward

FILMS = (".mp4", ".gif", ".webp")
COLOURS = ((80, 160, 255), (255, 150, 60), (110, 210, 110), (230, 110, 200), (240, 220, 90))
CURVE = 0.45
"""Height of the curves, as a share of a film's."""
BACKGROUND = (18, 18, 24)
GAP, TITLE, LIMITS = 8, 24, 64
"""Space between two films, height of their names, and width of the curves' limits, pixels."""
FONT = ImageFont.load_default(14)
SHOWN = 256
"""Height of a film in the result, pixels, unless a scale is given."""


def reward_films(command: Reward) -> None:
    """Reward films and print, draw or list what they earn.

    Raises:
        UserError: the run is no reward, a film cannot be read, or the result has another ending.
    """
    out = command.out
    if out is not None and out.suffix.lower() not in FILMS:
        check_table_name(out)
    reward, _ = VideoReward.of_run(command.run, command.reward)
    films, rates = [], []
    for path in command.files:
        with open_video(path) as decoder:
            rates.append(float(decoder.info.fps or 10))
        films.append(read_video(path, size=(reward.size, reward.size)).video)
    found = reward.of_films(films)
    _tell(command.files, found, reward)
    if out is None:
        return
    if out.suffix.lower() in FILMS:
        scale = command.scale or max(1, SHOWN // reward.size)
        write_video(out, drawn([str(path) for path in command.files], films, found, scale), rates[0])
    else:
        write_rows(list(_rows(command.files, found)), out)
    print(out)


def _tell(paths: Sequence[Any], found: Sequence[Rewards], reward: VideoReward) -> None:
    """Print the mean of each film, and what two films differ in."""
    unit = f"nats a {reward.config.unit}" if _tells_places(found[0]) else "a frame"
    unit = "from 0 to 1" if reward.config.range else unit
    for path, one in zip(paths, found):
        values = one.values[1:] if len(one.values) > 1 else one.values
        worst = int(values.argmin()) + min(1, len(one.values) - 1)
        print(f"{path}: mean {values.mean():.4f} {unit}, lowest {values.min():.4f} at frame {worst}")
    if len(found) > 1:
        length = min(len(one.values) for one in found)
        best = np.stack([one.values[:length] for one in found]).argmax(axis=0)
        for number, path in enumerate(paths):
            print(f"{path}: earns most in {np.mean(best[1:] == number):.0%} of {length - 1} frames")


def _rows(paths: Sequence[Any], found: Sequence[Rewards]) -> Iterator[dict[str, Any]]:
    for path, one in zip(paths, found):
        for number, value in enumerate(one.values):
            yield {"path": str(path), "frame": number, "reward": float(value)}


def drawn(names: Sequence[str], films: Sequence[Tensor], found: Sequence[Rewards], scale: int) -> Tensor:
    """The film that shows all films side by side, ``T 3 H W`` uint8: each as it is, under its name and the reward of
    the frame, beside it dark where it is likely and bright where it is not (unless the model does not tell places
    apart), and the rewards of all as curves below, in the colours of the names."""
    length = max(len(film) for film in films)
    logs = np.concatenate([one.maps.reshape(-1) for one in found])
    low, high = np.quantile(logs, 0.01), np.quantile(logs, 0.99)
    strips: list[Tensor] = []
    for number, (film, one) in enumerate(zip(films, found)):
        frames = F.interpolate(film.float(), scale_factor=scale, mode="nearest")
        if _tells_places(one):
            unlikely = torch.from_numpy((high - one.maps) / max(high - low, 1e-9)).clamp(0, 1)[:, None]
            unlikely = F.interpolate(unlikely, size=frames.shape[-2:], mode="nearest")
            grey = frames.mean(dim=1, keepdim=True) * 0.35
            heat = torch.cat([255 * unlikely, 140 * unlikely, 30 * unlikely], dim=1)
            frames = torch.cat([frames, (grey + heat).clamp(0, 255)], dim=3)
        frames = torch.cat(
            [_titles(names[number], one, frames.shape[3], COLOURS[number % len(COLOURS)]), frames], dim=2
        )
        last = frames[-1:].expand(length - len(frames), -1, -1, -1)
        gap = torch.zeros(length, 3, frames.shape[2], GAP if number else 0)
        strips += [gap, torch.cat([frames, last])]
    shown = torch.cat(strips, dim=3)
    curves = _curves(found, length, shown.shape[3], max(2, int(CURVE * films[0].shape[-2] * scale)))
    video = torch.cat([shown, curves], dim=2)
    even = [n - n % 2 for n in video.shape[-2:]]
    return video[..., : even[0], : even[1]].round().byte()


def _tells_places(rewards: Rewards) -> bool:
    """Whether a model says which parts of a frame are likely."""
    return rewards.maps[0].size > 1


def _titles(name: str, rewards: Rewards, width: int, colour: tuple[int, int, int]) -> Tensor:
    """A film's name and the reward of each frame, ``T 3 h w`` float; the first one is no action's."""
    pictures = []
    for number, value in enumerate(rewards.values):
        picture = Image.new("RGB", (width, TITLE), BACKGROUND)
        draw = ImageDraw.Draw(picture)
        said = f"{value:.3f}" if number else ""
        room = width - 12 - draw.textlength(said, FONT)
        shown = name
        while shown and draw.textlength(shown, FONT) > room - 8:
            shown = shown[1:]  # the end tells files of a folder apart
        draw.text((4, TITLE / 2), shown, colour, FONT, anchor="lm")
        draw.text((width - 4, TITLE / 2), said, colour, FONT, anchor="rm")
        pictures.append(np.asarray(picture))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def _curves(found: Sequence[Rewards], length: int, width: int, height: int) -> Tensor:
    """The rewards of all films up to each frame, ``T 3 h w`` float, on one scale."""
    values = np.concatenate([one.values[1:] if len(one.values) > 1 else one.values for one in found])
    low, high = float(values.min()), float(values.max())
    canvas = Canvas(max(width, height), BACKGROUND)
    side = canvas.size

    def place(step: int, value: float) -> tuple[float, float]:
        up = (np.clip(value, low, high) - low) / max(high - low, 1e-9)
        return (4 + (width - LIMITS) * step / max(1, length - 1)) / side, (height - 5 - (height - 10) * up) / side

    for number, one in enumerate(found):
        points = [place(step, value) for step, value in enumerate(one.values)]
        for start, end in pairwise(points[1:]):
            canvas.line(start, end, 1.6 / side, COLOURS[number % len(COLOURS)])
    canvas.keep()
    limits = _limits(low, high, width, height)
    pictures = []
    for step in range(length):
        canvas.clear()
        for one in found:
            if step < len(one.values) and step:
                x, y = place(step, one.values[step])
                canvas.disc(x, y, 3 / side, (255, 255, 255))
        x = place(step, low)[0]
        canvas.line((x, 0.0), (x, height / side), 1 / side, (90, 90, 100))
        pictures.append(np.maximum(canvas.picture()[:height, :width], limits))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def _limits(low: float, high: float, width: int, height: int) -> np.ndarray:
    """The highest and the lowest reward, written at the right end of the curves' picture, ``h w 3`` uint8."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    draw.text((width - 4, 4), f"{high:.3g}", (150, 150, 160), FONT, anchor="rt")
    draw.text((width - 4, height - 4), f"{low:.3g}", (150, 150, 160), FONT, anchor="rb")
    return np.asarray(picture)
