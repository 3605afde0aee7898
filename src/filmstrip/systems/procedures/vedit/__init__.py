"""VEDIT: the embeddings of unseen clips are made out of noise, and what is done in them is read off.

A diffusion transformer turns noise into the embeddings of clips that are not there, in 24 Euler steps of flow
matching, given the frozen encoder's embeddings of those that are: seen and noisy clips have a branch each, which meet
in joint attention. An attentive classifier names the step, and its cross-entropy alone trains both, through all
steps. The next step, the steps between a start and a goal, and the task of a whole procedure (what a clip after the
last one would show) are the same question, asked of other places.
Lin et al., "VEDIT: Latent Prediction Architecture for Procedural Video Representation Learning", 2024.

    filmstrip train procedures.vedit:coin_forecast --data FEATURES --data.reads.annotations COIN

Where we deviate, or the paper is silent: without a condition, for guidance, there are no seen clips at all, and their
branch does not run; gates begin at zero; a time's shifts and scales are computed once for a batch; the last block's
seen branch also asks nothing (its queries would be read by nobody). Batch sizes and weight decay are ours where the
paper gives none. In its planning tables VEDIT's blocks sit within SCHEMA; here they plan by themselves, in SCHEMA's
sizes and with its published rates. diffusers' schedule ends at a thousandth: the last step is tiny.

The paper reports: COIN, SigLIP, step forecasting 51.8, task classification 94.6, step classification 61.8 (tables 1
and 6), 52.1 and 94.6 after pretraining (table 5); Ego4D edit distance at 20, verbs 0.697, nouns 0.711 (table 3);
within SCHEMA, success rates at horizon 3 of 28.94 on NIV, 32.27 on COIN and 31.08 on CrossTask (table 2).

Measured here with an earlier form of ``filmstrip claims vedit_depth`` (8 denoising steps, 300 training steps)
(NIV, three steps, width 64, five seeds, success rate): one block 22.44±5.38, the vanilla transformer 24.44±1.72, with
as many parameters 32.37±2.12; two blocks 37.26±5.89 against 28.96±2.12 and 32.30±4.67; four blocks 44.15±4.81 against
32.74±3.04 and 29.41±4.29. Better with depth, and not steadier. CrossTask, COIN and forecasting: docs/performance.md.

Parameters of the predictor, millions, against table 7. Width 1280, 3, 6, 12, 18 blocks: 163.8, 340.8, 695.0, 1049
(stated 165, 342, 696, 1050); width 2048, 3, 6, 12 blocks: 414.6, 867.8, 1774 (418, 871, 1770). The other rows, one
block 45.7 and 112.5 (62, 132) and nine blocks of width 2048 1321 (1340), fit none of the table's own differences
between rows; with the 16.8 of the attentive classifier they would be 62.6, 129.4 and 1338.
"""

from filmstrip.systems.procedures.vedit.model import (
    VEDIT,
    AtTime,
    ClipDenoiser,
    Predicted,
    Pretraining,
    PretrainingConfig,
    StepClassifier,
    StepClassifierConfig,
    VEDiT,
    VEDITConfig,
)
from filmstrip.systems.procedures.vedit.presets import (
    coin_forecast,
    coin_forecast_large_1280,
    coin_forecast_medium_2048,
    coin_forecast_single_1280,
    coin_forecast_single_2048,
    coin_forecast_small_1280,
    coin_forecast_small_2048,
    coin_forecast_tiny_1280,
    coin_forecast_tiny_2048,
    coin_forecast_xl_1280,
    coin_plan3,
    coin_plan4,
    coin_step,
    coin_task,
    crosstask_plan3,
    crosstask_plan4,
    ego4d_nouns,
    ego4d_verbs,
    niv_plan3,
    niv_plan4,
    pretrain_large_2048,
    pretrain_tiny_1280,
    tiny,
    tiny_plan,
    tiny_pretrain,
)
