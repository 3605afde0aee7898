import pytest
import torch
from in_memory import memory_batches

from filmstrip.data.config import Data
from filmstrip.evals import features, multi_view
from filmstrip.runs.evaluation import Subject


@pytest.fixture
def subject_of(monkeypatch):
    """``subject_of(objective, source)``: a subject whose videos lie in memory."""
    monkeypatch.setattr(multi_view, "EvalLoader", memory_batches)
    monkeypatch.setattr(features, "EvalLoader", memory_batches)

    def build(objective, source):
        return Subject(objective=objective, source=source, data=Data(), device=torch.device("cpu"))

    return build
