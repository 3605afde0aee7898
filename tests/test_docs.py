"""The documentation agrees with the repository."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from filmstrip.__main__ import main
from started import Started

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize(
    ("script", "page"),
    [
        ("make_index", "systems"),
        ("make_claims", "claims"),
        ("make_batches", "batches"),
        ("make_kept", "kept_and_replaced"),
    ],
)
def test_pages_that_are_made_are_up_to_date(script, page):
    check = Started(ROOT / f"docs/{script}.py", "--check")
    assert check.wait() == 0, f"docs/{page}.md is out of date: run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_example_of_a_system_works(monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/add_a_system.md").read_text(), re.DOTALL)[1]
    module = types.ModuleType("mean_frame")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "add_a_system.md", "exec"), vars(module))
    run = module.tiny()
    clip = run.data.clip
    video = torch.randint(0, 256, (2, clip.num_frames, 3, clip.size, clip.size), dtype=torch.uint8)
    objective = run.objective.build()
    loss = objective({"video": video, "label": torch.tensor([0, 1])}).total
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
    objective.eval()
    assert torch.allclose(objective.classify(video), objective.classify(video.flip(1)), atol=1e-4)


def test_the_example_of_own_files_trains(monkeypatch, tmp_path):
    page = (ROOT / "docs/add_a_kind_of_data.md").read_text()
    (tmp_path / "my_package").mkdir()
    code = re.search(r"```python\n(from dataclasses.*?)```", page, re.DOTALL)[1]
    (tmp_path / "my_package" / "own_files.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("FILMSTRIP_ALLOW", raising=False)
    for label, shift in (("left", -1), ("right", 1)):
        (tmp_path / "arrays" / label).mkdir(parents=True)
        for number in range(3):
            image = np.random.default_rng(number).integers(0, 256, (3, 32, 32), dtype=np.uint8)
            moving = np.stack([np.roll(image, t * shift, 2) for t in range(9)])
            np.save(tmp_path / "arrays" / label / f"{number}.npy", moving)
    clip = ["--data.clip.num-frames", "4", "--data.clip.size", "32", "--data.batch-size", "4"]
    train = ["train", "my_package.own_files:small", "--data", "arrays", "--train.steps", "2", *clip, "--out", "run"]
    assert main(train) == 0 and main(["eval", "run"]) == 0
