"""Pictures of what trained objectives make, from runs with random weights."""

from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.report.clips import frames_of
from filmstrip.runs.pictures import draw_pictures, kept_pictures
from run_folders import save_run


def drawn(address, folder, **changes):
    run = systems.find(address)
    few = Motions(train_per_class=1, test_per_class=1, size=run.data.clip.size)
    run = replace(run, data=replace(run.data, synthetic=few, num_workers=0))
    source = open_source(run.data)
    bound = run.bound(source.info("train"))
    bound = replace(bound, objective=replace(bound.objective, **changes))
    torch.manual_seed(0)
    draw_pictures(bound.objective.build().eval(), bound, source, folder)
    return bound, kept_pictures(folder)


def test_a_tokenizer_shows_reconstructions(tmp_path):
    run, (kind,) = drawn("tokenizers.vqvae3d:tiny", tmp_path)
    assert kind.title == "Reconstructions" and len(kind.files) == 4 and len(set(kind.names)) == 4
    frames = frames_of(kind.files[0])
    clip = run.data.clip
    assert frames.shape == (clip.num_frames, 3, clip.size, 2 * clip.size)
    assert (frames[..., : clip.size].float() - frames[..., clip.size :].float()).abs().mean() > 5


def test_a_masked_autoencoder_shows_what_it_fills_in(tmp_path):
    run, (kind,) = drawn("pretraining.videomae:tiny", tmp_path)
    clip = run.data.clip
    original, visible, filled = frames_of(kind.files[1]).float().split(clip.size, dim=3)
    assert kind.heads == ("original", "visible", "filled in")
    share = ((visible - original).abs() < 12).float().mean()
    assert 0.05 < share < 0.6  # most is masked
    assert (filled - original).abs().mean() > 1


def test_a_generator_shows_samples_of_its_classes(tmp_path):
    run, (kind,) = drawn("generation.videogpt:tiny", tmp_path, untrained_tokenizer=True)
    assert kind.title == "Samples" and kind.heads == () and len(kind.files) == 4
    assert frames_of(kind.files[0]).shape[1:] == (3, run.data.clip.size, run.data.clip.size)


def test_a_classifier_makes_no_pictures(tmp_path):
    _, found = drawn("recognition.vit:tiny", tmp_path)
    assert found == [] and not list(tmp_path.iterdir())


def test_a_report_is_written_again_with_pictures(tmp_path, capsys):
    save_run(tmp_path / "run", "tokenizers.vqvae3d:tiny")
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1, "seconds": 1.0, "loss": 1.0}\n')
    assert main(["report", str(tmp_path / "run"), "--no-pictures"]) == 0
    assert not (tmp_path / "run/samples").exists()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("report.html") == 2
    assert len(list((tmp_path / "run/samples").glob("*.webp"))) == 4
    assert "from its tokens" in (tmp_path / "run/report.html").read_text()


def test_a_damaged_index_is_one_sentence(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/pictures.json").write_text("[1]")
    with pytest.raises(UserError, match="is damaged"):
        kept_pictures(tmp_path)
