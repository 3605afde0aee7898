"""Label propagation of one frame: ours, squares of tokens against their surroundings, and all pairs of tokens.

    python bench/tracking.py                     # 32 and 64 tokens a side, 8 frames before, width 384
    python bench/tracking.py --sides 64 --width 768

All pairs is how DINO's public evaluation does it: every similarity is computed, and those beyond the radius are
discarded. Both give the same masks, and alternate in one process.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from filmstrip.evals.propagation import Propagation, propagate
from timing import alternate


def all_pairs(features: Tensor, known: Tensor, masks: Tensor, settings: Propagation) -> Tensor:
    """Soft masks ``C h w``, as :func:`propagate`."""
    _, channels, height, width = masks.shape
    y = torch.arange(height).repeat_interleave(width)
    x = torch.arange(width).repeat(height)
    far = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs()) > settings.radius
    similarity = torch.einsum("nd,mkd->nmk", features, known).masked_fill_(far[:, None], -torch.inf).flatten(1)
    best = similarity.topk(settings.top_k, dim=1).values
    weight = ((similarity - best[:, :1]) / settings.temperature).exp().masked_fill(similarity < best[:, -1:], 0.0)
    found = weight @ masks.permute(0, 2, 3, 1).flatten(0, 2) / weight.sum(dim=1, keepdim=True)
    return found.T.view(channels, height, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64], help="tokens along height and width")
    parser.add_argument("--width", type=int, default=384, help="dimension of a token")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    settings, generator = Propagation(), torch.Generator().manual_seed(0)
    for side in args.sides:
        count = settings.last_frames + 1
        features = normalize(torch.randn(side * side, args.width, generator=generator), dim=-1)
        known = normalize(torch.randn(count, side * side, args.width, generator=generator), dim=-1)
        masks = torch.rand(count, args.objects + 1, side, side, generator=generator)
        given = (features, known, masks, settings)
        assert (propagate(*given) - all_pairs(*given)).abs().max() < 1e-4
        seconds = alternate(
            {"ours": partial(propagate, *given), "all pairs": partial(all_pairs, *given)}, rounds=args.rounds
        )
        ours, theirs = seconds["ours"], seconds["all pairs"]
        print(f"{side} x {side} tokens: ours {ours:.3f} s, all pairs {theirs:.3f} s, ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
