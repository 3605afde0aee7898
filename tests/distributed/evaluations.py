"""Evaluates a toy in a process of its own by every kind of protocol: ``evaluations.py DATA OUT``."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from colour_videos import CLIP, Colours
from filmstrip.data.config import Data
from filmstrip.data.sources import open_source
from filmstrip.distributed import process
from filmstrip.evals.attentive_probe import AttentiveProbe
from filmstrip.evals.generation import Generation
from filmstrip.evals.knn import KNN
from filmstrip.evals.likelihood import Likelihood
from filmstrip.evals.multi_view import MultiView
from filmstrip.evals.reconstruction import Reconstruction
from filmstrip.evals.video_prediction import VideoPrediction
from filmstrip.protocols import Grid, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.evaluation import Subject


class Everything(Colours):
    """A classifier, encoder, tokenizer and generator that notes how many clips it saw."""

    codebook_size = 8

    def __init__(self):
        super().__init__()
        self.seen = {"classify": 0, "encode": 0, "sample": 0, "log_prob": 0}

    def classify(self, video):
        self.seen["classify"] += len(video)
        return super().classify(video)[:, :2]

    def encode(self, video):
        self.seen["encode"] += len(video)
        return Tokens(Grid(video.shape[1], 1, 1), ids=(as_float(video)[:, :, 0].mean(dim=(2, 3)) * 7).long())

    def decode(self, tokens):
        return (tokens.ids / 7).view(*tokens.ids.shape, 1, 1, 1).expand(-1, -1, 3, CLIP.size, CLIP.size)

    def sample(self, condition, *, seed, sampling=None):
        self.seen["sample"] += condition.batch_size
        shape = (condition.batch_size, condition.num_frames, 3, CLIP.size, CLIP.size)
        return uniform(seed + torch.arange(shape[0]), 1, "test").view(-1, 1, 1, 1, 1).expand(shape)

    def log_prob(self, batch):
        self.seen["log_prob"] += len(batch["video"])
        return -as_float(batch["video"]).mean(dim=(1, 2, 3, 4))

    def dims_of(self, batch):
        return batch["video"][0].numel()


def main(root, out):
    torch.set_num_threads(1)
    Accelerator()
    data = Data(path=Path(root), clip=CLIP, num_workers=0)
    objective = Everything()
    subject = Subject(objective=objective, source=open_source(data), data=data, device=torch.device("cpu"))
    cache = Path(out) / "cache"
    cache.mkdir(exist_ok=True)
    found = {}
    protocols = (
        MultiView(num_clips=3, num_crops=3, batch_size=4),
        KNN(k=3, batch_size=2, cache=cache),
        KNN(k=2, batch_size=2, cache=cache),
        AttentiveProbe(epochs=2, batch_size=2),
        Reconstruction(batch_size=2),
        Likelihood(batch_size=1, num_videos=5),
        Generation(num_samples=5, batch_size=2, class_conditional=True),
        VideoPrediction(context=1, horizon=2, samples=2, num_videos=6, batch_size=2),
    )
    for number, protocol in enumerate(protocols):
        found |= {f"{number}/{name}": value for name, value in protocol(subject)}
    (Path(out) / f"{process.rank()}.json").write_text(json.dumps({"found": found, "seen": objective.seen}))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


main(*sys.argv[1:])
