"""Batches drawn from a fixed generator, the same on every machine, for systems of every kind."""

from dataclasses import replace
from itertools import cycle, islice

import torch

from filmstrip import systems
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.data.kinds.prompted import Prompted
from filmstrip.rl.experience import Experience, ExperienceInfo

NUM_CLASSES = 8
WINDOW, TOKENS, WIDTH = 5, 2, 16  # places of a procedure, tokens of a clip, their size
SIZES = {"K": NUM_CLASSES, "S": WINDOW, "N": TOKENS, "D": WIDTH, "T": 48}


def draw_batch(data, *, size, seed):
    """The example of the data's kind of sample: video as the clip says, all else of ``SIZES``."""
    sizes, clip = {**SIZES, "B": size}, data.clip
    if "video" in data.reads.specification.keys:
        sizes |= {"T": clip.num_frames, "H": clip.size, "W": clip.size}
    sizes |= vectors_of(data.reads)
    return data.reads.example(sizes, torch.Generator().manual_seed(seed))


def vectors_of(kind):
    """Sizes of actions and states, of a kind that reads states, of actions and of films, of one that acts, and of
    actions and of what shows the task, of one that reads prompts."""
    if isinstance(kind, Experience):
        return {"A": 2, "F": kind.length if kind.experts else 0}
    if isinstance(kind, Prompted):
        return {"A": 2, "P": kind.prompt_frames, "L": kind.max_length}
    return {"A": 2, "S": 2} if getattr(kind, "states", "") else {}


def info_for(kind, **sizes):
    """What an objective is told of data such as those that are drawn, with ``sizes`` of its own."""
    names = tuple(str(i) for i in range(NUM_CLASSES))
    return kind.example_info(SIZES | vectors_of(kind) | sizes, classes=names, num_train=96, directional=True)


def objective_of(preset):
    """What a preset such as ``generation.teco:dmlab`` builds, without memory for its weights, and its run."""
    run = systems.find(preset)
    info = info_for(run.data.reads)
    if isinstance(info, ExperienceInfo):
        info = replace(info, action_dim=run.objective.action_dim or 2)
    elif hasattr(run.objective, "state_dim"):
        info = replace(info, action_dim=run.objective.action_dim or 2, state_dim=run.objective.state_dim)
    elif isinstance(info, ClipInfo):
        info = replace(info, num_actions=4)  # some presets refuse data without
    run = run.bound(info)
    with torch.device("meta"):
        return run.objective.build(), run


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
