"""Batches drawn from a fixed generator, the same on every machine, for systems of every kind."""

from itertools import cycle, islice

import torch

NUM_CLASSES = 8
WINDOW, TOKENS, WIDTH = 5, 2, 16  # places of a procedure, tokens of a clip, their size


def draw_batch(clip, *, size, seed):
    """Smooth random clips that drift, with labels, seeds and boxes, beside procedures and untrimmed features."""
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
    return batch | draw_procedures(generator, size) | draw_untrimmed(generator, size) | draw_actors(generator, size)


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


def draw_actors(generator, size):
    """Two actors in each clip, left and right, who do up to two things; the third place for one is free."""
    corner = torch.rand(size, 2, 2, generator=generator) * torch.tensor([0.2, 0.5])
    corner[:, 1, 0] += 0.5
    length = 0.2 + 0.1 * torch.rand(size, 2, 2, generator=generator)
    boxes = torch.nn.functional.pad(torch.cat([corner, corner + length], dim=-1), (0, 0, 0, 1))
    done = torch.randint(0, NUM_CLASSES, (size, 3, 2), generator=generator)
    there = torch.tensor([True, True, False]).expand(size, 3)
    labels = torch.nn.functional.one_hot(done, NUM_CLASSES).amax(dim=2).float() * there[..., None]
    return {"boxes": boxes, "is_actor": there.clone(), "box_labels": labels}


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
