"""VEDIT plans better than a vanilla transformer, and stays stable where that one fails with depth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import PLANNING, Claim, Figure, above, below
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.sources import open_source
from filmstrip.evals.procedures import success_rate
from filmstrip.inference import inference
from filmstrip.objectives.step_prediction import StepPrediction, StepPredictionConfig
from filmstrip.systems.procedures.transformer import StepTransformerConfig
from filmstrip.systems.procedures.vedit import VEDITConfig

DATASET, WIDTH, HORIZON = "niv", 64, 3
STEPS, BATCH, LR, NOISE, DENOISING = 200, 32, 3e-3, 0.5, 8
DEPTHS = (1, 4)
Windows = dict[str, Tensor]

CLAIM = Claim(
    systems=("procedures.vedit", "procedures.transformer"),
    finding=__doc__.strip(),
    paper="Lin et al. 2024, success rates of plans of three steps within SCHEMA (mean and deviation of ten runs), "
    "vanilla blocks and VEDIT's: NIV 26.66±2.27 and 28.94±1.07, CrossTask 30.57±0.38 and 31.08±0.31, COIN "
    "26.38±3.66 and 32.27±0.44 (table 2); the vanilla transformer fails as it grows deeper.",
    here="The steps are those of NIV's videos; each clip that is seen is the CLIP text embedding of its step, in a "
    "fixed random projection to 64 values, with Gaussian noise. Networks are 64 wide and train for 200 steps, VEDIT "
    "with 8 steps of denoising. The vanilla transformer has three times the blocks, which are as many parameters. "
    "Success rates in the test videos; by itself, not within SCHEMA.",
    baseline="A vanilla transformer of as many parameters.",
    figures={
        **{f"VEDIT, {n}": Figure(says=f"VEDIT, {n} block{'s' * (n > 1)}: success rate, %") for n in DEPTHS},
        **{f"vanilla, {3 * n}": Figure(says=f"vanilla, {3 * n} blocks: success rate, %") for n in DEPTHS},
        "VEDIT, gain": Figure(says="VEDIT: gain by four times the depth, points"),
        "vanilla, gain": Figure(says="vanilla: gain by four times the depth, points"),
    },
    expected=(
        above(
            "VEDIT, 4", "vanilla, 12", "with four blocks VEDIT plans better than as many parameters of vanilla blocks"
        ),
        above("VEDIT, gain", 0.0, "VEDIT gains with depth"),
        below("vanilla, gain", "VEDIT, gain", "the vanilla transformer gains less, or loses"),
    ),
    analysis="An earlier form of this claim, with CrossTask, COIN, forecasting, kinds of attention and numbers of "
    "denoising steps, took hours: [performance](performance.md#procedures) has its figures.",
    needs=(PLANNING / DATASET, PLANNING / f"text_features/{DATASET}_action_prompt_features.npy"),
    minutes=2.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    windows, test, num_steps = read()
    found = {}
    for depth in DEPTHS:
        found[f"VEDIT, {depth}"] = planned(vedit(num_steps, depth), windows, test, seed)
        found[f"vanilla, {3 * depth}"] = planned(vanilla(num_steps, 3 * depth), windows, test, seed)
    for name, times in (("VEDIT", 1), ("vanilla", 3)):
        shallow, deep = (found[f"{name}, {times * depth}"] for depth in DEPTHS)
        found[f"{name}, gain"] = deep - shallow
    return found


def read() -> tuple[Windows, Windows, int]:
    """All windows of the training and the test videos, and the number of steps."""
    asked = Procedures(
        dataset=DATASET,
        annotations=PLANNING / DATASET,
        task="planning",
        horizon=HORIZON,
        noise=NOISE,
    )
    source = open_source(Data(path=PLANNING / f"text_features/{DATASET}_action_prompt_features.npy", reads=asked))
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(source.features.width, WIDTH, generator=generator)).Q
    axes = axes * (source.features.width / WIDTH) ** 0.5

    def split(which: str) -> Windows:
        found = [sample.cut(Data())[0].content for sample in source.samples if sample.split == which]
        windows = {key: torch.stack([one[key] for one in found]) for key in ("features", "step", "seen", "target")}
        windows["features"] = windows["features"] @ axes
        return windows

    return split("train"), split("test"), len(source.classes)


def batches(windows: Windows, steps: int, size: int, seed: int) -> Iterator[Windows]:
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(windows["step"]), (size,), generator=generator)
        yield {key: value[rows] for key, value in windows.items()} | {
            "seed": (seed << 32) + step * size + torch.arange(size)
        }


def planned(config: StepPredictionConfig, windows: Windows, test: Windows, seed: int) -> float:
    """The success rate of a network's plans after training, in percent."""
    true = test["step"][test["target"]].view(len(test["step"]), -1)
    network = train(config, windows, seed)
    with inference(network):
        logits = network.forecast(test)[:, 0]
    return 100 * float(success_rate(logits.argmax(dim=-1)[test["target"]].view_as(true), true))


def train(config: StepPredictionConfig, windows: Windows, seed: int) -> StepPrediction:
    """A network after its steps: a tenth of them for warm-up, and a rate that falls to zero."""
    torch.manual_seed(seed)
    network = config.build().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.05, fused=True)
    for step, batch in enumerate(batches(windows, STEPS, BATCH, seed)):
        rate = min((step + 1) / (0.1 * STEPS), 1.0) * (1 - step / STEPS)
        optimiser.param_groups[0]["lr"] = LR * rate
        network(batch).total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return network


def vedit(num_steps: int, depth: int) -> VEDITConfig:
    return VEDITConfig(
        width=WIDTH,
        depth=depth,
        num_heads=2,
        feature_width=WIDTH,
        num_steps=num_steps,
        num_targets=HORIZON,
        denoising_steps=DENOISING,
        guidance=7.0,
        recompute=False,
    )


def vanilla(num_steps: int, depth: int) -> StepTransformerConfig:
    return StepTransformerConfig(width=WIDTH, depth=depth, num_heads=2, feature_width=WIDTH, num_steps=num_steps)
