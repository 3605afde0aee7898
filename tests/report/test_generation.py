import json

import pytest

from filmstrip.evals.frame_curves import name_of, point_of
from filmstrip.report.generation import frame_curves, generation_table, is_curve_point
from filmstrip.report.run import run_report

LABEL = "64x64/3f_after_4/n8x2"


def recorded(base):
    values = {"loss": ([1, 2], [3.0, 2.0]), f"eval/psnr/{LABEL}": ([1, 2], [1.0, base])}
    values["eval/fvd_after_4/random_i3d/64px_bilinear/3f/n8"] = ([2], [100 - base])
    for frame in range(3):
        values[f"eval/psnr/{LABEL}/frame_{frame:03d}"] = ([1, 2], [0.0, base - frame])
        values[f"eval/psnr_best/{LABEL}/frame_{frame:03d}"] = ([2], [base - frame + 1])
    return values


def test_each_metric_has_a_chart_and_each_run_a_curve():
    group = frame_curves({"teco": recorded(30.0), "videogpt": recorded(20.0)})
    (chart,) = group.sections
    assert chart.title == f"PSNR (dB): {LABEL}"
    assert chart.curves == {
        "teco": ([0, 1, 2], [30, 29, 28]),
        "teco, best": ([0, 1, 2], [31, 30, 29]),
        "videogpt": ([0, 1, 2], [20, 19, 18]),
        "videogpt, best": ([0, 1, 2], [21, 20, 19]),
    }
    assert frame_curves({"teco": {"loss": ([1], [2.0])}}) is None


def test_the_table_marks_the_best_and_says_what_was_measured(read_page):
    table = generation_table({"teco": recorded(30.0), "videogpt": recorded(20.0), "empty": {}})
    assert [column.name for column in table.columns] == ["run", "psnr (1)", "fvd_after_4 (2)"]
    assert [column.best for column in table.columns] == [None, "highest", "lowest"]
    assert list(table.rows) == [("teco", 30.0, 70.0), ("videogpt", 20.0, 80.0), ("empty", None, None)]
    text = read_page(table.html()).text
    assert "(1) 64x64, 3f_after_4, n8x2" in text and "(2) random_i3d, 64px_bilinear, 3f, n8" in text


def test_a_runs_report_draws_the_curves_and_lists_the_rest(tmp_path, read_page):
    lines = [{"step": step, "seconds": 1.0, **{k: v[1][-1] for k, v in recorded(30.0).items()}} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {"data": {"path": "videos", "synthetic": None}, "objective": {"type": "filmstrip.x:TECOConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    page = read_page(run_report(tmp_path).read_text())
    assert page.count("svg") == 4  # loss, two evaluations over steps, and the curve
    assert f"PSNR (dB): {LABEL}" in page.words
    assert not any("/frame_" in word for word in page.words)


@pytest.mark.parametrize(
    "name", ["frame_mAP@0.5", "box/frame_mAP", "frame_rate/frame_x", "by/frame_01s", "n/frame_12"]
)
def test_a_metric_may_speak_of_frames_without_being_a_point_of_a_curve(tmp_path, read_page, name):
    assert not is_curve_point(f"eval/{name}")
    assert frame_curves({"run": {f"eval/{name}": ([1], [0.5])}}) is None
    assert [column.name for column in generation_table({"run": {f"eval/{name}": ([1], [0.5])}}).columns][1:]
    line = {"step": 1, "seconds": 1.0, "loss": 2.0, f"eval/{name}": 0.25}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    config = {"data": {"path": "videos", "synthetic": None}, "objective": {"type": "filmstrip.x:ActorRoIConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert name in read_page(run_report(tmp_path).read_text()).words


def test_points_of_a_curve_are_called_in_one_way():
    for frame in (0, 7, 155, 1234):
        assert point_of(name_of("eval/psnr/a/frame_mean", frame)) == ("eval/psnr/a/frame_mean", frame)
    assert name_of("psnr", 7) == "psnr/frame_007"
