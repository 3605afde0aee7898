"""A BLIP in the Hub's layout writes captions, judges them, and starts a run."""

import json

import pytest
import torch
from safetensors.torch import save_file

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work.caption_table import read_captions
from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start, with_sizes_of_init
from filmstrip.text.tokenizers import Pretrained
from filmstrip.video.write import write_grid

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "green", "disc", "square"]
TEXT = dict(
    vocab_size=12,
    hidden_size=16,
    encoder_hidden_size=12,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=40,
    bos_token_id=10,
    sep_token_id=3,
)
VISION = dict(
    hidden_size=12, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
)


def released(folder, kind):
    torch.manual_seed(0)
    config = transformers.BlipConfig(text_config=TEXT, vision_config=VISION, image_text_hidden_size=6)
    model = getattr(transformers, kind)(config)
    for name, parameter in model.named_parameters():
        if not name.lower().endswith("norm.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir()
    state = {n: x.clone() for n, x in model.state_dict().items() if "predictions.decoder" not in n}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    tokenizer = transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("blip")
    pictures = root / "pictures"
    pictures.mkdir()
    for i, colour in enumerate(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))):
        write_grid(pictures / f"{i}.png", [torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 24, 24)], gap=0)
    writer = released(root / "writer", "BlipForConditionalGeneration")
    judge = released(root / "judge", "BlipForImageTextRetrieval")
    return writer, judge, pictures


def test_texts_begin_and_end_as_berts(folders):
    tokenizer = Pretrained(folder=str(folders[0])).fit((), ())
    assert (tokenizer.start, tokenizer.end) == (2, 3)
    assert tokenizer.encode("a red disc") == [5, 6, 8]


def test_a_released_model_writes_and_another_judges(folders, tmp_path, capsys):
    writer, judge, pictures = folders
    written, kept = tmp_path / "written.csv", tmp_path / "kept.csv"
    command = ["caption", str(writer), str(pictures), "--out", str(written), "--prompt", "a", "--max-tokens", "5"]
    assert main([*command, "--min-tokens", "2"]) == 0
    texts = [text for row in read_captions(written) for text in row.synthetic]
    assert len(texts) == 2 and all(texts)
    assert main(["filter", str(judge), str(written), "--out", str(kept), "--share", "0.5"]) == 0
    assert sum(len(row.texts) for row in read_captions(kept)) in (1, 2)  # both may say the same
    assert main(["filter", str(judge), str(written), "--out", str(kept), "--by", "similarity", "--share", "1"]) == 0
    capsys.readouterr()
    assert main(["caption", str(judge), str(pictures), "--out", str(written)]) == 2
    assert "is no BLIP that writes captions" in capsys.readouterr().err
    assert main(["filter", str(writer), str(written), "--out", str(kept)]) == 2
    assert "BLIP for retrieval" in capsys.readouterr().err


def test_a_released_model_starts_a_run(folders):
    writer, _, _ = folders
    run = systems.find("language.blip:tiny")
    sized = with_sizes_of_init(type(run)(**{**vars(run), "init": str(writer)}))
    assert sized.objective.text.width == 16 and sized.objective.starts == (10, 11)
    assert sized.data.clip.size == sized.objective.vision.size == 16 and sized.objective.vision.num_frames == 4
    assert sized.data.reads.tokenizer == Pretrained(folder=str(writer))
    objective = sized.objective.build()
    start(objective, str(writer))
    assert objective.words.bias.std() > 0.1
    with pytest.raises(UserError, match=r"leave out objective\.text\.width"):
        with_sizes_of_init(type(run)(**{**vars(run), "init": str(writer)}), ("objective.text.width",))
