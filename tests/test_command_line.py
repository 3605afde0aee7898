"""What a person meets: help, wrong input with its exit code, and the commands that need no training."""

import pytest

from filmstrip.__main__ import COMMANDS, main
from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import Muon
from filmstrip.train.schedules import WarmupStableDecay


def said(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_command(capsys):
    code, out, _ = said(capsys, "--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    try:
        code = main([command, "--help"])
    except SystemExit as done:
        code = done.code
    assert code == 0
    assert len(capsys.readouterr().out.splitlines()) > 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tran"], "did you mean 'train'"),
        (["train"], "SYSTEM"),
        (["train", "recognition.vitt"], "did you mean 'recognition.vit'"),
        (["show", "recognition.vit:tyni"], "did you mean 'tiny'"),
        (["train", "recognition.vit", "--data", "no/such/folder"], "no/such/folder"),
        (["eval", "no/such/run"], "not a run folder"),
        (["eval", "no/such/run", "--protocol", "knnn"], "did you mean 'knn'"),
        (["predict", "no/such/run", "a.mp4"], "not a run folder"),
        (["predict", __file__, "a.mp4"], "not a run folder"),
        (["predict", "no/such/run"], "predict needs videos"),
        (["encode", "no/such/run", "--out", "no/such/out"], "encode needs videos"),
        (["eval", "no/such/run", "--k", "3"], "add --protocol NAME; there are "),
        (["show", "recognition.vit", "--data.clip.size", "7"], "not a multiple of patches (2, 8, 8)"),
        (["show", "recognition.vit", "--objective.num-heads", "7"], "not a multiple of 7 heads"),
        (["show", "recognition.slowfast", "--data.clip.num-frames", "2"], "not a multiple of the speed ratio"),
        (["show", "recognition.vit", "--data.reads", "clps"], "did you mean 'clips'"),
        (["show", "recognition.vit", "--data.reads", "procedures"], "Classification needs 'video', 'label' in its"),
        (["show", "recognition.vit", "--optim", "adam"], "--optim adam: expected one of adamw, sgd, muon"),
        (["show", "recognition.vit", "--optim.schedule", "step"], "one of cosine, constant, warmup-stable-decay"),
        (["show", "recognition.vit", "--optim.rates", "(", "0"], "optim.rates: '(' is not a regular expression"),
        (["show", "recognition.vit", "--optim.schedule.warmup", "1.5"], "optim.schedule.warmup is 1.5: expected"),
        (["show", "recognition.vit", "--train.epochs", "0"], "train.length.epochs is 0: expected a number above 0"),
        (["show", "recognition.vit", "--train.steps", "9", "--train.epochs", "2"], "give one of them"),
        (["bench", "recognition.vit", "--data", "no/such/folder"], "no/such/folder"),
        (["compare", "--data", "no/such/folder"], "no/such/folder"),
        (["visualize", "no/such/run", "--class", "right"], "not a run folder"),
        (["export", "no/such/run", "--out", "a.pt2"], "no/such/run"),
        (["compare", "--systems", "recognition.vit,recognition.lrnc"], "did you mean 'recognition.lrcn'"),
        (["data", "chekc", "x"], "check, prepare, convert, make, steps or questions"),
        (["data", "make", "motion"], "motions"),
        (["data", "check", "no/such/folder"], "no/such/folder"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(capsys, arguments, expected):
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert expected in err
    assert err.startswith("filmstrip: ") and "Traceback" not in err


def test_an_unknown_option_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["show", "recognition.vit", "--optim.lrr", "1"])
    assert stopped.value.code == 2
    assert "--optim.lr" in capsys.readouterr().err


def test_list_and_show(capsys):
    _, out, _ = said(capsys, "list")
    assert "recognition.vit" in out and "base_k400" in out
    _, out, _ = said(capsys, "show", "recognition.vit:base_k400", "--optim.lr", "0.5")
    assert '"lr": 0.5' in out
    assert "86.5" in out and "180.3" in out and "1568" in out


def run_of(*words):
    return run_from(Train, list(words), "filmstrip train")[0]


def test_another_optimiser_and_schedule_are_chosen_by_name():
    preset = run_of("recognition.vit:base_k400")
    run = run_of("recognition.vit:base_k400", "--optim.lr", "0.5", "--optim", "muon", "--optim.momentum", "0.9")
    assert run.optim == Muon(lr=0.5, momentum=0.9, layer_decay=0.75, schedule=preset.optim.schedule)
    assert run_of("recognition.vit:base_k400", "--optim=adamw").optim == preset.optim
    words = [
        "--optim.schedule",
        "warmup-stable-decay",
        "--optim.schedule.decay",
        "30",
        "--optim.schedule.warmup",
        "0.1",
    ]
    chosen = run_of("recognition.vit:base_k400", *words).optim.schedule
    assert chosen == WarmupStableDecay(warmup=0.1, decay=Steps(30), final=preset.optim.schedule.final)
    rates = run_of("recognition.vit", "--optim.rates", "encoder", "0", "head", "10").optim.rates
    assert rates == (("encoder", 0.0), ("head", 10.0))


def test_the_length_is_given_in_steps_or_in_epochs():
    for address in ("recognition.vit:tiny", "recognition.vit:base_k400"):  # one in steps, one in epochs
        assert run_of(address, "--train.steps", "7").train.length == Steps(7)
        assert run_of(address, "--train.epochs=2.5").train.length == Epochs(2.5)


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        ("list", "usage: filmstrip list"),
        ("predict", "usage: filmstrip predict RUN FILE|FOLDER|MANIFEST|SOURCE... [options]"),
        ("plan", "usage: filmstrip plan RUN START GOAL [options]"),
        ("compare", "usage: filmstrip compare [--systems SYSTEM[:PRESET],...] [--data PATH] [options]"),
        ("train", "usage: filmstrip train SYSTEM[:PRESET] [--data PATH] [--out FOLDER] [options of the run]"),
        ("train recognition.vit", "usage: filmstrip train recognition.vit [--data PATH] [--out FOLDER]"),
        ("eval no/such/run", "usage: filmstrip eval RUN [--protocol NAME [options of the protocol]] [--data PATH]"),
        ("eval no/such/run --protocol knn", "usage: filmstrip eval RUN --protocol knn [options] [--data PATH]"),
        ("data make motions", "usage: filmstrip data make motions [--out FOLDER] [options of the dataset]"),
        ("data steps", "usage: filmstrip data steps ANNOTATIONS VIDEOS --dataset NAME --out FILE [options]"),
    ],
)
def test_help_begins_with_a_usage_that_names_what_is_wanted(capsys, arguments, usage):
    with pytest.raises(SystemExit) as done:
        main([*arguments.split(), "--help"])
    out = capsys.readouterr().out
    assert done.value.code == 0
    assert out.startswith(usage) and out.count("usage:") == 1
