"""J, F and their statistics against the public evaluation of DAVIS 2017, and against TrackEval.

``stored/davis.npz`` was made by ``davis2017/metrics.py`` and ``davis2017/utils.py`` of
davisvideochallenge/davis2017-evaluation at commit ac7c43f (``db_eval_iou`` and ``db_eval_boundary`` of each object
of :func:`films`, without the first and the last frame, and ``db_statistics`` of them), with OpenCV and a disk of all
pixels within the radius, as in scikit-image; ``trackeval`` in it are ``J-Mean``, ``J-Recall``, ``J-Decay``,
``F-Mean``, ``F-Recall``, ``F-Decay`` and ``J&F`` of TrackEval 1.3.0's ``JAndF`` on the same frames, a row for each
film.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from filmstrip.evals.segmentation import boundary_accuracy, region_similarity, statistics

STORED = Path(__file__).parent / "stored" / "davis.npz"
FRAMES = 14


def films():
    """Three films of predicted and true masks, ``T H W`` uint8: blobs that wander, touch borders, vanish and meet."""
    y, x = np.mgrid[:90, :160]
    for film in range(3):
        rng = np.random.default_rng(film)
        truth, predicted = np.zeros((2, FRAMES, 90, 160), np.uint8)
        for number in (1, 2)[: 1 + film % 2]:
            at, step, radius = rng.uniform(15, 75, 2), rng.uniform(-4, 4, 2), rng.uniform(12, 28)
            for t in range(FRAMES):
                for masks, error in ((truth, 0.0), (predicted, 1.0 + 0.4 * t)):
                    top, left = at + t * step + rng.normal(0, 0.3 * error, 2)
                    ragged = 1 + 0.15 * np.sin(5 * np.arctan2(y - top, x - 2 * left) + error)
                    there = np.hypot(y - top, (x - 2 * left) / 1.4) < np.maximum(0.0, radius * ragged - error)
                    masks[t][there] = number
        yield predicted, truth


@pytest.mark.parametrize("film", range(3))
def test_j_f_and_their_statistics_are_the_published_ones(film):
    predicted, truth = (torch.from_numpy(masks) for masks in list(films())[film])
    stored = np.load(STORED)
    means = []
    for number in range(1, 2 + film % 2):
        pairs = [(p == number, t == number) for p, t in zip(predicted[1:-1], truth[1:-1])]
        for name, measure in (("j", region_similarity), ("f", boundary_accuracy)):
            values = torch.tensor([measure(*pair) for pair in pairs], dtype=torch.float64)
            assert values.numpy() == pytest.approx(stored[f"{name}_{film}_{number}"], abs=1e-12)
            found = statistics(values)
            assert found == pytest.approx(tuple(stored[f"{name}_statistics_{film}_{number}"]), abs=1e-12)
            means.append(found)
    j, f = np.mean(means[::2], axis=0), np.mean(means[1::2], axis=0)
    assert [*j, *f, (j[0] + f[0]) / 2] == pytest.approx(stored["trackeval"][film], abs=1e-9)


def test_the_films_are_not_all_easy():
    stored = np.load(STORED)
    values = np.concatenate([stored[name] for name in stored if name.count("_") == 2])
    assert values.min() < 0.3 and values.max() > 0.8 and (values == 0).any()
