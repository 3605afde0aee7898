"""VIPER: a model of experts' videos is frozen, and how likely it finds an agent's next frame is the agent's reward.

VideoGPT, or MaskGIT over space and in order over time, learns the codes of videos without actions and rewards; then
r_t = ln p(x_{t+1} | x_{t-k..t}), the log-likelihood of the codes of the frame that an action led to. An exploration
bonus stands for the entropy of the divergence between the agent's and the experts' trajectories, and any algorithm
can learn from the sum. Escontrela et al., "Video Prediction Models as Rewards for Reinforcement Learning", NeurIPS
2023.

    filmstrip rl record --env dm_control/walker-walk --policy runs/oracle --episodes 1000 --best 50 --out experts/walk
    filmstrip train tokenizers.vqgan:viper_dmc --data experts --out runs/codes
    filmstrip train rewards.viper:dmc --data experts --objective.tokenizer-run runs/codes --out runs/prior
    filmstrip reward runs/prior film.mp4 --out reward.mp4
    filmstrip eval runs/prior --protocol reward_alignment --data trajectories

The networks are ``generation.videogpt`` and ``generation.maskgit`` with the sizes of table E.2, and the averaged
weights reward (0.9999, as in the published code). Windows, units and skipped frames are those of
:mod:`filmstrip.rl.rewards`; ``rewards.byol_explore`` is the paper's third model, and any run with a likelihood of
frames is a reward, Toto and TECO included. Parts that are blanked (``--data.blanked 0 0 1 0.2``, a scoreboard) are
kept with the run, so that rewards blank what training did.

Where we deviate, and choose: the text's windows have k frames before the one that is rewarded, its algorithm k + 1,
its tables 16 in all: 16 in all. The published code's reward is the likelihood of the whole window, clipped to 0..1 by
ranges of each task (``kind joint``, ``range``); here that of the frame is the default, as in the text. Its text
models 16, 8 and 34 classes of 15, 7 and 33 tasks; the numbers are kept.

The paper reports, without any figure in its text: experts' films get more than random ones, returns correlate with
rewards over 40 trajectories, frame skip 4 is needed for slow arms, Pong's scoreboard is to be blanked, and longer
contexts help. What is measured here is in the claims ``viper_ranking`` (returns and rewards of 40 episodes have a
rank correlation of 0.96), ``viper_context``, ``viper_skip``, ``viper_scoreboard`` and ``viper_agent``; on films,
in ``viper_suboptimal``, ``viper_data_size`` and ``viper_embodiment``; and on models and kinds of likelihood in
``viper_maskgit``, ``byol_still`` and ``viper_lapse``.
"""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Clip
from filmstrip.evals.reward_alignment import RewardAlignment
from filmstrip.objectives.codebook import Codebook
from filmstrip.rl.films import ExpertFilms
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW


def tiny() -> Run:
    """``point`` at 32 x 32 pixels, by VideoGPT over an untrained tokenizer; trains in seconds on two CPU cores."""
    run = point()
    return replace(
        run,
        data=replace(
            run.data, synthetic=ExpertFilms(num_train=24, num_test=4, max_steps=24), clip=_clip(4), batch_size=16
        ),
        objective=replace(run.objective, untrained_tokenizer=True, width=64, depth=2, num_frames=4),
        train=Loop(length=Steps(100)),
        evals=(RewardAlignment(trajectories=5),),
    )


def tiny_maskgit() -> Run:
    """The same by MaskGIT, whose codes of a frame are revealed in a random order, frame after frame."""
    run = tiny()
    masked = find("generation.maskgit:viper_dmc").objective
    own = run.objective
    return replace(
        run,
        objective=replace(
            masked,
            tokenizer=own.tokenizer,
            untrained_tokenizer=True,
            num_frames=own.num_frames,
            size=own.size,
            conditions=(),
            num_classes=0,
            width=64,
            depth=2,
            num_heads=4,
            code_width=32,
            history_width=64,
            history_depth=2,
            history_num_heads=4,
        ),
    )


def point_codes() -> Run:
    """The tokenizer of ``point``: 4 x 4 codes for a frame of 32 x 32 pixels, by DALL-E's network with a codebook of
    moving averages, which needs no discriminator."""
    run = find("tokenizers.dvae:tiny")
    network = replace(run.objective, width=8, num_groups=4, codebook=Codebook(kind="ema", size=64, dim=16))
    return replace(
        run,
        data=replace(run.data, synthetic=ExpertFilms(), clip=_clip(2)),
        objective=network,
        optim=AdamW(lr=3e-3, weight_decay=0.0),
        train=Loop(length=Steps(400)),
    )


def point() -> Run:
    """``point`` at 32 x 32 pixels: eight frames of 4 x 4 codes, above the tokenizer of ``point_codes``."""
    codes, prior = point_codes(), find("generation.videogpt:viper_dmc").objective
    return Run(
        data=replace(codes.data, clip=_clip(8), batch_size=32),
        objective=replace(
            prior,
            tokenizer=codes.objective,
            num_frames=8,
            size=32,
            width=96,
            depth=4,
            num_heads=4,
            conditions=(),
            num_classes=0,
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.0),
        train=Loop(length=Steps(600)),
        evals=(RewardAlignment(),),
    )


def _clip(frames: int) -> Clip:
    return Clip(num_frames=frames, stride=1, size=32, short_side=(32, 32))


def _paper(address: str) -> Run:
    """A preset of a generator as a reward: its averaged weights count."""
    run = find(address)
    return replace(run, train=replace(run.train, ema=0.9999))


def dmc() -> Run:
    """The DeepMind Control Suite's, 16 classes, 16 frames of 8 x 8 codes."""
    return _paper("generation.videogpt:viper_dmc")


def atari() -> Run:
    """Atari's, 8 classes, 16 frames of 16 x 16 codes; blank the scoreboard of your game (``--data.blanked``)."""
    return _paper("generation.videogpt:viper_atari")


def rlbench() -> Run:
    """One task of RLBench, 4 frames, every fourth, of 16 x 16 codes."""
    return _paper("generation.videogpt:viper_rlbench")


def rlbench_multi() -> Run:
    """34 classes of RLBench: two arms and their tasks."""
    return _paper("generation.videogpt:viper_rlbench_multi")


def dmc_maskgit() -> Run:
    """The DeepMind Control Suite's by MaskGIT."""
    return _paper("generation.maskgit:viper_dmc")
