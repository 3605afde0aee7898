"""What an actor does is told by the frames around a key frame, not by the key frame.

    python claims/detection_motion.py

On AVA, frames seen fast beside slow ones are worth 5.2 points of mean average precision (Feichtenhofer et al. 2019:
ResNet-50, 4 x 16, from 19.0 for the slow network alone to 24.2), where a part of the actions, such as sitting, shows
in one frame. On moving actors none does: a network of key frames must stay where scores drawn at random are, and
SlowFast must not. Boxes are annotated ones; numbers are mean average precision at an overlap of 0.5, percent, in key
frames and over tubes that are linked through the video.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from filmstrip.data.synthetic.actors import Actors
from filmstrip.runs import experiment
from filmstrip.systems.detection import actor_roi

NETWORKS = {"key frame alone": actor_roi.tiny_one_frame, "SlowFast, 8 frames": actor_roi.tiny}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--videos", type=int, default=400, help="of training; 60 more are for testing")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, preset in NETWORKS.items():
            run = preset()
            data = replace(run.data, synthetic=Actors(num_train=args.videos, num_test=60))
            run = replace(run, data=data, train=replace(run.train, steps=args.steps, log_every=50))
            found[name] = experiment.train(run, (args.out or Path(temporary)) / preset.__name__).metrics
    print("\n| network | mAP of key frames | of tubes | paper, AVA: slow network, SlowFast |\n|---|---:|---:|---|")
    for name, paper in zip(NETWORKS, ("19.0", "24.2")):
        frames, tubes = (100 * found[name][key] for key in ("mAP@0.5", "video_mAP@0.5"))
        print(f"| {name} | {frames:.1f} | {tubes:.1f} | {paper} |")


if __name__ == "__main__":
    main()
