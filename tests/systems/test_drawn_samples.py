"""Every system can be timed on a drawn batch of the kind of sample that it reads."""

import dataclasses

import torch
from drawn import info_for

from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.kinds.conversations import OF_SHARED_ROWS
from filmstrip.data.sample import Source
from filmstrip.evals.throughput import random_batch
from filmstrip.runs.evaluation import Subject


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told(Source):
    """A collection of which only is known what objectives are told."""

    told_info: object
    kind: type

    def info(self, train_split):
        return self.told_info

    splits = ("train",)
    gives = property(lambda self: frozenset(self.kind.specification.keys) - OF_SHARED_ROWS)


def test_a_drawn_batch_is_what_the_objective_reads(run):
    kind = run.data.reads
    # Texts are as long as the preset says, and not as in the records of training.
    info = info_for(kind, **({"L": kind.max_length} if isinstance(kind, Captioned) else {}))
    objective = run.bound(info).objective.build()
    source = Told(root=".", classes=(), samples=(), told_info=info, kind=type(kind))
    subject = Subject(objective=objective, source=source, data=run.data, device=torch.device("cpu"))
    batch = random_batch(subject, 2)
    assert len(batch["name"]) == 2 and list(kind.specification.faults(batch)) == []
    with torch.no_grad():
        assert objective(batch, objective.phases()[0].name).total.isfinite()
