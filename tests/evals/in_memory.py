"""Videos in memory: each is one constant value, which throw-away models read back."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch


@dataclass(frozen=True)
class Video:
    """A video whose views (one value in 0..255 each) are given; without views it cannot be read."""

    name: str
    label: int | None
    views: tuple[int, ...]


class MemorySource:
    """Stands for a source: named splits of :class:`Video`."""

    labels = "class"

    def __init__(self, classes, **splits):
        self.classes = tuple(classes)
        self.splits = splits

    def split(self, name):
        return tuple(
            SimpleNamespace(name=v.name, label=v.label, is_labelled=v.label is not None, video=v)
            for v in self.splits[name]
        )


def memory_batches(source, data, split, *, num_clips=1, num_crops=1, batch_size=2):
    """Stands for the evaluation loader: one row a view, unreadable videos left out. A clip lasts half a second."""
    rows = [
        (index, sample.label, value, (i // num_crops, i // num_crops + 0.5))
        for index, sample in enumerate(source.split(split))
        for i, value in enumerate(sample.video.views[: num_clips * num_crops])
    ]
    for start in range(0, len(rows), batch_size):
        index, label, value, span = zip(*rows[start : start + batch_size])
        video = torch.tensor(value, dtype=torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 4, 4)
        labels = torch.tensor([v or 0 for v in label])
        yield {"video": video, "index": torch.tensor(index), "label": labels, "span": torch.tensor(span)}
