import io
from dataclasses import replace

import pytest
from rich.console import Console

from colour_videos import RGB, write_colours
from filmstrip import systems
from filmstrip.commands.work.bench import BenchResult, bench_system
from filmstrip.data.config import Clip, Data
from filmstrip.measure.complexity import of_run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_system_is_measured_on_its_own_data(tmp_path, precision):
    for colour in RGB:
        for i in range(2):
            write_colours(tmp_path / "train" / colour / f"{i}.mp4", colour)
    run = systems.find("recognition.vit:tiny")
    clip = Clip(num_frames=4, stride=1, size=32, short_side=(32, 32))
    run = replace(
        run,
        data=Data(path=tmp_path, clip=clip, batch_size=4, num_workers=1),
        objective=replace(run.objective, num_frames=4, size=32, num_classes=3),
        train=Loop(length=Steps(1), precision=precision),
    )
    console = Console(file=io.StringIO(), width=100)
    found = bench_system(run, steps=2, device="cpu", console=console)
    assert list(found.parts) == ["copy and augment", "forward", "backward", "optimiser"]
    assert found.clips == 4 and found.loader_clips_per_second > 0
    # Backward is twice forward, and more where attention computes its scores again; pixels need no gradient.
    forward = 2 * 4 * of_run(run).multiply_adds
    assert 2.5 * forward < found.flops < 3.3 * forward
    assert 0 < found.floor_seconds < found.step_seconds
    text = console.file.getvalue()
    assert "clips/s" in text and "forward" in text and "1 workers" not in text


@pytest.mark.parametrize(("loader", "bound"), [(5.0, "the loader"), (20.0, "the model")])
def test_says_what_training_waits_for(loader, bound):
    bench = BenchResult(
        parameters=1_000_000,
        clips=8,
        loader_clips_per_second=loader,
        num_workers=2,
        parts={"forward": 0.2, "backward": 0.6},
        flops=4 * 10**9,
        matrix_rate=1e10,
        peak_bytes=2**30,
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(bench.table())
    lines = {line[:20].strip(): line[20:].strip() for line in console.file.getvalue().splitlines()}
    assert lines["training waits for"] == bound
    assert lines["step"].split() == ["10.0", "clips/s", "800", "ms", "for", "8", "clips"]
    assert lines["achieved"].startswith("50%")
    assert lines["backward"].endswith("75%")
    assert lines["minimum step time"].split() == ["400", "ms", "4", "GFLOP", "at", "10", "GFLOP/s"]
