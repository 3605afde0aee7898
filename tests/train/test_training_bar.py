import io

from rich.console import Console

from filmstrip.train.progress import ProgressBar

VALUES = {"loss": 0.25, "clips_per_second": 80.0}


def shown(terminal, start=0):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with ProgressBar(start, 100, console) as bar:
        for step in range(start + 10, 101, 10):
            bar.advance(step)
            bar.report(step, VALUES, seconds=(step - start) * 1.0)
        bar.say("[step] 100  eval/top1 0.5")
    return console.file.getvalue()


def test_elsewhere_than_on_a_terminal_there_are_plain_lines():
    lines = shown(terminal=False).splitlines()
    assert lines == [
        "step 10/100  loss 0.25  80 clips/s  1:30 left",
        "step 100/100  loss 0.25  80 clips/s  0:00 left",
        "[step] 100  eval/top1 0.5",
    ]


def test_time_left_counts_only_this_sessions_steps():
    assert shown(terminal=False, start=40).splitlines()[0].endswith("0:50 left")


def test_on_a_terminal_there_is_a_bar():
    text = shown(terminal=True)
    assert "100/100" in text and "loss 0.25  80 clips/s  0:00 left" in text and "\x1b[" in text
