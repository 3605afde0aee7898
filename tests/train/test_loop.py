import os
import signal

import pytest
import torch
from safetensors import safe_open
from torch import nn
from toys import SIZE, Adversarial, Momentum, Probe, Regression, Stream, differing, losses, rows, train, weights

from filmstrip.errors import Terminated, UserError
from filmstrip.protocols import Loss, Objective
from filmstrip.runs.run_folder import RunFolder
from filmstrip.runs.saved_states import saved_states
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.loop import fit
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine


def test_the_loss_falls_and_is_recorded(tmp_path):
    train(tmp_path, steps=40, log_every=10)
    recorded = rows(tmp_path)
    assert [row["step"] for row in recorded] == [10, 20, 30, 40]
    assert recorded[-1]["loss"] < 0.5 * recorded[0]["loss"]
    names = {"step", "seconds", "loss", "absolute", "grad_norm", "lr", "clips_per_second", "memory_gib"}
    assert set(recorded[0]) == names and all(row["clips_per_second"] > 0 for row in recorded)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_what_is_recorded_is_the_mean_since_the_last_time(tmp_path):
    train(tmp_path / "each", steps=5, log_every=1)
    train(tmp_path / "some", steps=5, log_every=3)
    each = losses(tmp_path / "each")
    assert losses(tmp_path / "some") == pytest.approx([sum(each[:3]) / 3, sum(each[3:]) / 2])
    assert [row["step"] for row in rows(tmp_path / "some")] == [3, 5]


def test_the_loop_does_what_a_plain_loop_does(tmp_path):
    """Clipping, AdamW and the schedule, written out for a plain network and plain tensors."""
    trained = train(
        tmp_path, steps=4, optim=AdamW(lr=1e-2, weight_decay=0.0, schedule=Cosine(warmup=0.5)), clip_grad=0.1
    )
    torch.manual_seed(0)
    plain = Regression()
    optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=0.0)
    for batch, lr in zip(Stream().stream(0), (0.5e-2, 1e-2, 1e-2, 0.5e-2)):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        plain(batch).total.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(tensor, trained.state_dict()[name], rtol=1e-4, atol=1e-6), name


def test_two_phases_each_train_their_own_network(tmp_path):
    class Watched(Adversarial):
        """Notes after each phase's forward which parameters ask for gradients."""

        def forward(self, batch, phase="main"):
            self.asked = [
                *getattr(self, "asked", ()),
                {n.split(".")[0] for n, p in self.named_parameters() if p.requires_grad},
            ]
            return super().forward(batch, phase)

    torch.manual_seed(0)
    objective = train(tmp_path, Watched(), steps=3, accumulate=2)
    assert objective.calls == ["generator"] * 2 + ["discriminator"] * 2 + objective.calls[:4] * 2
    assert objective.asked[0] == {"generator"} and objective.asked[2] == {"discriminator"}
    assert all(p.requires_grad and p.grad is None for p in objective.parameters())
    torch.manual_seed(0)
    start = Adversarial().state_dict()
    assert differing(start, objective.state_dict()) == sorted(start)
    recorded = rows(tmp_path)[-1]
    assert recorded["loss"] == pytest.approx(recorded["generator/loss"] + recorded["discriminator/loss"])
    assert {"generator/grad_norm", "discriminator/grad_norm", "discriminator/score"} <= recorded.keys()


def test_a_phase_leaves_no_gradient_to_the_next(tmp_path):
    """The two phases by hand, each gradient taken alone."""
    trained = train(tmp_path, "Adversarial", steps=3, optim=AdamW(lr=1e-2, schedule=Constant()), clip_grad=None)
    torch.manual_seed(0)
    plain = Adversarial()
    parts = {"generator": plain.generator, "discriminator": plain.discriminator}
    optimizers = {name: torch.optim.AdamW(built(part), lr=1e-2) for name, part in parts.items()}
    for batch, _ in zip(Stream().stream(0), range(3)):
        for phase, part in parts.items():
            params = list(part.parameters())
            for param, grad in zip(params, torch.autograd.grad(plain(batch, phase).total, params)):
                param.grad = grad
            optimizers[phase].step()
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(tensor, trained.state_dict()[name], rtol=1e-4, atol=1e-6), name


def built(module):
    """Weight decay for matrices only, as objectives have it by default."""
    return [{"params": [p], "weight_decay": 0.05 if p.ndim > 1 else 0.0} for p in module.parameters()]


def test_a_momentum_teacher_follows_after_each_step(tmp_path):
    objective = train(tmp_path, "Momentum", steps=5)
    torch.manual_seed(0)
    start = Momentum()
    assert objective.steps == [1, 2, 3, 4, 5]
    pairs = ((objective.teacher, start.teacher), (objective.student, start.student))
    moved = [(now.weight - then.weight).norm() for now, then in pairs]
    assert 0 < moved[0] < moved[1]
    assert "teacher.weight" in weights(tmp_path)


def test_a_frozen_part_stays_as_it_is_and_in_its_mode(tmp_path):
    objective = train(
        tmp_path, "Probe", evaluate=lambda objective, step: iter([("mode", float(objective.eval().training))])
    )
    torch.manual_seed(0)
    start = Probe().state_dict()
    assert differing(start, objective.state_dict()) == ["head.bias", "head.weight"]
    assert objective.training and objective.head.training and not objective.frozen[1].training
    assert "frozen.0.weight" in weights(tmp_path)


def test_a_part_that_is_kept_elsewhere_is_in_neither_weights_nor_states_nor_averages(tmp_path):
    for name in ("Probe", "Referring"):
        train(tmp_path / name, name, ema=0.9)
    saved = {}
    for name in ("Probe", "Referring"):
        with safe_open(tmp_path / name / "state" / "000000006" / "tensors.safetensors", "pt") as state:
            saved[name] = set(state.keys())
    assert {name for name in saved["Probe"] if "frozen" in name} == {
        "weights/frozen.0.weight",
        "weights/frozen.0.bias",
    }
    assert saved["Referring"] == {name for name in saved["Probe"] if "frozen" not in name}
    expected = {name: value for name, value in weights(tmp_path / "Probe").items() if "frozen" not in name}
    assert differing(weights(tmp_path / "Referring"), expected) == []


def test_accumulating_equals_one_large_batch(tmp_path):
    whole = train(tmp_path / "whole")
    halves = train(tmp_path / "halves", accumulate=2)
    # Sums in another order, which the first steps of AdamW enlarge: by 2.4e-5 on some processors.
    assert losses(tmp_path / "halves") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    assert int(halves.seen) == 2 * int(whole.seen)


def test_the_average_is_evaluated_and_kept(tmp_path):
    """The average by hand, from the weights that a run without one passes through."""
    passed = []

    class Recorded(Regression):
        def after_step(self, step):
            passed.append({n: p.detach().clone() for n, p in self.named_parameters()})

    torch.manual_seed(0)
    start = Recorded()
    average = {n: p.detach().clone() for n, p in start.named_parameters()}
    seen = {}

    def evaluate(objective, step):
        seen[step] = {n: p.detach().clone() for n, p in objective.named_parameters()}
        yield "x", 0.0

    objective = train(tmp_path, start, steps=4, ema=0.25, eval_every=2, evaluate=evaluate)
    for step, now in enumerate(passed, 1):
        decay = min(0.25, (1 + step) / (10 + step))
        average = {n: decay * average[n] + (1 - decay) * now[n] for n in average}
        if step in seen:
            assert all(torch.allclose(average[n], seen[step][n], atol=1e-6) for n in average)
    assert list(seen) == [2, 4]
    assert all(torch.equal(seen[4][n], p) for n, p in objective.named_parameters())
    assert differing(objective.state_dict(), weights(tmp_path)) == []
    assert differing(passed[-1], seen[4])


def test_evaluating_does_not_disturb_training(tmp_path):
    def evaluate(objective, step):
        objective.eval()
        yield "draw", torch.rand(()).item()

    def dropping():
        torch.manual_seed(0)
        return Regression(dropout=0.5)

    without = train(tmp_path / "without", dropping())
    evaluated = train(tmp_path / "with", dropping(), eval_every=2, evaluate=evaluate, ema=0.5)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert [row["step"] for row in rows(tmp_path / "with") if "eval/draw" in row] == [2, 4, 6]
    assert differing(without.state_dict(), evaluated.state_dict())


def test_batches_that_lack_a_key_are_refused_before_the_first_step(tmp_path):
    class Captioned(Regression):
        requires = ("video", "text")

    with pytest.raises(UserError, match=r"Captioned needs 'text' in its batches, .* provides 'video', 'label'"):
        train(tmp_path, Captioned())
    assert not (tmp_path / "state").exists()


class Exploding(Regression):
    """Its second term is not a number from step 3 on."""

    def forward(self, batch, phase="main"):
        total, metrics = super().forward(batch)
        term = total * (torch.nan if self.seen > 3 else 1)
        return Loss(total + term, {**metrics, "second": term.detach()})


def test_a_loss_that_is_not_finite_stops_before_it_harms(tmp_path):
    objective = Exploding()
    with pytest.raises(
        UserError, match=r"step 4: loss, second is not finite .*second nan.*clip 3-0, .*clip 3-7\. "
    ) as stop:
        train(tmp_path, objective, save_every=2)
    assert "absolute 0." in str(stop.value) and "optim.lr" in str(stop.value)
    assert all(p.isfinite().all() for p in objective.parameters())
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["000000002"]


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    class Steep(Objective):
        def __init__(self):
            super().__init__()
            self.scale = nn.Linear(1, 1, bias=False)
            nn.init.zeros_(self.scale.weight)

        def forward(self, batch, phase="main"):
            return Loss(self.scale.weight.sum().sqrt(), {})  # the root of zero: finite, its slope is not

    with pytest.raises(UserError, match="step 1: grad_norm is not finite"):
        train(tmp_path, Steep())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_step_and_saves(tmp_path, number):
    def press(step):
        if step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(tmp_path / "pressed", before=press)
    assert getattr(stop.value, "number", signal.SIGINT) == number
    assert signal.getsignal(number) is before
    assert [path.name for path in (tmp_path / "pressed" / "state").iterdir()] == ["000000004"]
    resumed, through = train(tmp_path / "pressed"), train(tmp_path / "through")
    assert differing(resumed.state_dict(), through.state_dict()) == []


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def press(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second Ctrl-C was not raised")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, before=press)
    assert not (tmp_path / "state").exists()


def test_a_second_sigterm_still_waits_for_the_step(tmp_path):
    """Schedulers send it to every process of a job, and torchrun passes on its own."""

    def press(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        train(tmp_path, before=press)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["000000004"]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(tmp_path, before=lambda step: os.kill(os.getpid(), signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_fails_in_the_first_step_leaves_the_folder_empty(tmp_path):
    class Broken(Regression):
        def forward(self, batch, phase="main"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, Broken())
    with pytest.raises(UserError, match="at least one step"):
        train(tmp_path, steps=0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_begins_says_so_once_before_anything_is_saved(tmp_path):
    folder, seen = RunFolder(tmp_path), []

    def begun():
        seen.append([path.name for path in saved_states(folder.state)])

    for steps in (3, 5, 5):
        fit(Regression(), Stream(), optim=AdamW(), loop=Loop(length=Steps(steps)), folder=folder, begun=begun)
    assert seen == [[], ["000000003"], ["000000003", "000000005"]]


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_in_float32(tmp_path):
    seen = []

    class Watched(Regression):
        def forward(self, batch, phase="main"):
            seen.append(self.network.head(torch.zeros(1, SIZE)).dtype)
            return super().forward(batch)

    objective = train(tmp_path / "half", Watched(), precision="bfloat16")
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in objective.parameters()} == {torch.float32}
    assert losses(tmp_path / "half")[-1] < losses(tmp_path / "half")[0]
    train(tmp_path / "full", Watched())  # another precision in the same process
    assert seen[-1] == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can do it")
def test_float16_needs_a_gpu(tmp_path):
    with pytest.raises(UserError, match="float16 needs a CUDA device"):
        train(tmp_path, precision="float16")


def test_batches_are_augmented_before_the_objective_sees_them(tmp_path):
    train(tmp_path / "plain")
    train(tmp_path / "dark", augment=lambda batch: {**batch, "video": batch["video"] // 2})
    assert losses(tmp_path / "plain") != losses(tmp_path / "dark")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no weights yet"):
        RunFolder(tmp_path).load_weights(Regression())
    train(tmp_path, steps=1)
    fresh = Regression()
    RunFolder(tmp_path).load_weights(fresh)
    assert differing(fresh.state_dict(), weights(tmp_path)) == []
    with pytest.raises(UserError, match="does not fit the run's configuration"):
        RunFolder(tmp_path).load_weights(Probe())


def test_tied_weights_are_saved(tmp_path):
    class Tied(Regression):
        def __init__(self):
            super().__init__()
            first, second = self.network.blocks
            second.mlp[0].weight = first.mlp[0].weight

    tied = train(tmp_path, Tied(), ema=0.5)
    fresh = Tied()
    RunFolder(tmp_path).load_weights(fresh)
    assert differing(fresh.state_dict(), tied.state_dict()) == []


def test_a_warmup_that_does_not_end_is_named(tmp_path, caplog):
    optim = AdamW(schedule=Cosine(warmup=Steps(4)))
    train(tmp_path / "shorter", steps=3, optim=optim)
    assert "the warm-up of 4 steps does not end within 3" in caplog.text
    caplog.clear()
    train(tmp_path / "as long", steps=4, optim=optim)
    assert caplog.text == ""
