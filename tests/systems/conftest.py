"""What every system is tried on: batches drawn from a fixed generator, and the small synthetic sets as real files."""

from itertools import cycle, islice

import pytest
import torch

from filmstrip import systems
from filmstrip.data.config import DataInfo

NUM_CLASSES = 8
WINDOW, TOKENS, WIDTH = 5, 2, 16  # places of a procedure, tokens of a clip, their size


def pytest_addoption(parser):
    parser.addoption(
        "--write-golden", action="store_true", help="write tests/golden/*.txt anew instead of comparing with them"
    )


@pytest.fixture(params=systems.names())
def name(request):
    """Every system there is: a new one is covered without an edit."""
    return request.param


@pytest.fixture
def run(name):
    names = tuple(str(i) for i in range(NUM_CLASSES))
    procedures = {"steps": names, "tasks": names, "window": WINDOW, "width": WIDTH, "grid": (TOKENS, 1, 1)}
    info = DataInfo(classes=names, num_train=96, directional=True, **procedures)
    return systems.find(f"{name}:tiny").bound(info)


@pytest.fixture
def objective(run):
    torch.manual_seed(0)
    return run.objective.build()


@pytest.fixture
def batches(run):
    return [draw_batch(run.data.clip, size=4, seed=seed) for seed in range(2)]


@pytest.fixture(scope="session")
def synthetic_cache(tmp_path_factory):
    """Generated data sets live here for the session, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILMSTRIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def draw_batch(clip, *, size, seed):
    """Smooth random clips that drift, with labels and seeds; the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size, 3, clip.size // 8, clip.size // 8, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(clip.size, clip.size), mode="bilinear")
    drift = torch.randint(-3, 4, (size, 2), generator=generator).tolist()
    video = [
        torch.stack([frames.roll((dy * t, dx * t), dims=(1, 2)) for t in range(clip.num_frames)])
        for frames, (dy, dx) in zip(image, drift)
    ]
    batch = {
        "video": (torch.stack(video) * 255).to(torch.uint8),
        "label": torch.randint(0, NUM_CLASSES, (size,), generator=generator),
        "seed": torch.randint(0, 2**40, (size,), generator=generator),
        "name": [f"clip {i}" for i in range(size)],
        "index": torch.arange(size),
    }
    return batch | draw_procedures(generator, size) | draw_untrimmed(generator, size)


def draw_procedures(generator, size):
    """Windows whose first and last clips are given; the steps between, which follow from the first, are asked for."""
    step = (torch.randint(0, NUM_CLASSES, (size, 1), generator=generator) + torch.arange(WINDOW)) % NUM_CLASSES
    seen = torch.zeros(size, WINDOW, dtype=torch.bool)
    seen[:, [0, -1]] = True
    features = torch.nn.functional.one_hot(step, WIDTH).float()[:, :, None]
    features = features + 0.1 * torch.randn(size, WINDOW, TOKENS, WIDTH, generator=generator)
    return {
        "features": features * seen[..., None, None],
        "step": step,
        "seen": seen,
        "target": ~seen,
        "task": step[:, 0],
    }


def draw_untrimmed(generator, size, rows=48):
    """Noise along a video in which two actions happen, one short and one long; the third place for one is free."""
    first = torch.randint(2, 6, (size,), generator=generator).float() + 0.3
    segments = torch.stack([torch.stack([first, first + 7.5]), torch.stack([first + 12, first + 36])])
    segments = torch.cat([segments.permute(2, 0, 1), torch.zeros(size, 1, 2)], dim=1)
    classes = torch.randint(0, NUM_CLASSES, (size, 3), generator=generator)
    classes[:, 2] = -1
    place = torch.arange(rows)[:, None]
    inside = (place >= segments[:, None, :2, 0]) & (place < segments[:, None, :2, 1])
    kinds = torch.nn.functional.one_hot(classes[:, :2], WIDTH).float()
    noise = torch.randn(size, rows, WIDTH, generator=generator)
    return {
        "sequence": inside.float() @ kinds + 0.1 * noise,
        "length": torch.full((size,), rows - 2),
        "timing": torch.tensor([0.25, 0.5], dtype=torch.float64).expand(size, 2),
        "seconds": torch.full((size,), 0.5 * rows, dtype=torch.float64),
        "segments": segments,
        "classes": classes,
    }


class Repeat:
    """A stream over the same few batches; ``stop_at`` breaks it off, as a crash would."""

    steps_per_epoch = 2.0
    unreadable = ()

    def __init__(self, batches, stop_at=None):
        self.batches, self.stop_at = batches, stop_at

    def stream(self, start):
        for step, batch in enumerate(islice(cycle(self.batches), start, None), start):
            if step == self.stop_at:
                raise ConnectionError("the power went out")
            yield dict(batch)
