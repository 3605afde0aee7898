"""Batches drawn from a fixed generator, the same on every machine, for systems of every kind."""

from itertools import cycle, islice

import torch

from filmstrip.data.kinds.actors import ActorClips, draw_actors
from filmstrip.data.kinds.clips import Clips, draw_clips
from filmstrip.data.kinds.procedures import Procedures, draw_windows
from filmstrip.data.kinds.untrimmed import UntrimmedVideos, draw_sequences

NUM_CLASSES = 8
WINDOW, TOKENS, WIDTH = 5, 2, 16  # places of a procedure, tokens of a clip, their size
SIZES = {"K": NUM_CLASSES, "S": WINDOW, "N": TOKENS, "D": WIDTH, "T": 48}
IN_TURN = (Clips, Procedures, UntrimmedVideos, ActorClips)


def draw_batch(data, *, size, seed):
    """The keys that the data's kind of sample has. Kinds ``IN_TURN`` draw from one generator, one after another, as
    when golden traces were written; any other is drawn alone."""
    generator, kind = torch.Generator().manual_seed(seed), data.reads
    sizes, clip = {**SIZES, "B": size}, Clips().sizes(data, None)
    if type(kind) not in IN_TURN:
        return kind.example({**clip, **sizes}, generator)
    batch = draw_clips({**sizes, **clip, "K": NUM_CLASSES}, generator)
    for draw in (draw_windows, draw_sequences, draw_actors):
        batch |= draw(sizes, generator)
    return {key: value for key, value in batch.items() if key in kind.specification.keys}


def info_for(kind):
    """What an objective is told of data such as those that are drawn."""
    names = tuple(str(i) for i in range(NUM_CLASSES))
    return kind.example_info(SIZES, classes=names, num_train=96, directional=True)


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
