"""Language models of text as folders of ``transformers``: ``LlamaForCausalLM`` and its family."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstrip.commands.work.export_folder import difference, read_in_transformers, tell_difference, tokenizer_files
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.kinds.documents import Documents
from filmstrip.files import write_json, write_tensors
from filmstrip.inference import inference
from filmstrip.objectives.text import TextModel
from filmstrip.runs.config import Run
from filmstrip.text.tokenizers import open_tokenizer

_ROWS, _TOKENS = 2, 48
"""Size of the texts that are compared."""


def export_text(source: str, objective: TextModel, run: Run, out: Path) -> None:
    """Write a run's language model with its tokenizer, where that is a published one.

    Raises:
        UserError: ``transformers`` has no such model, or what it reads says something else.
    """
    config, weights = objective.to_transformers()
    tokenizer = open_tokenizer(Path(source))
    config |= {
        "max_position_embeddings": _length_of(run),
        "bos_token_id": tokenizer.start,
        "eos_token_id": tokenizer.end,
        "pad_token_id": tokenizer.pad if tokenizer.pad < config["vocab_size"] else None,
        "dtype": "float32",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        written = Path(folder) / out.name
        written.mkdir()
        write_json(config, written / "config.json")
        stored = {name: tensor.contiguous() for name, tensor in weights.items()}
        write_tensors(stored, written / "model.safetensors", metadata={"format": "pt"})
        others = tokenizer_files(Path(source))
        for path in others:
            shutil.copyfile(path, written / path.name)
        found = difference("transformers", lambda: _both(objective, config, written))
        shutil.move(written, out)
    name, size = config["architectures"][0], sum(tensor.nbytes for tensor in weights.values()) / 1e6
    print(f"{out}: {name} of transformers, {size:.1f} MB, rope_theta {objective.decoder.config.rope_base:,.0f}")
    if not others:
        print("without a tokenizer: transformers has none like this run's (text_tokenizer.json)")
    tell_difference(found, "transformers")


def _length_of(run: Run) -> int:
    """Number of tokens of the texts that a run learnt from."""
    reads = run.data.reads
    if isinstance(reads, Documents):
        return reads.length
    assert isinstance(reads, Conversations), "a language model of text reads no other kind"
    return reads.max_length


def _both(objective: TextModel, config: dict[str, Any], folder: Path) -> tuple[Tensor, Tensor]:
    """The written model's logits, and ours, of drawn texts at the beginning and at the end of the longest."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(config["vocab_size"], (_ROWS, _TOKENS), generator=generator)
    last = max(0, config["max_position_embeddings"] - _TOKENS)
    positions = torch.stack([torch.arange(_TOKENS), last + torch.arange(_TOKENS)])
    network = read_in_transformers(config, folder, dtype=torch.float32)
    with inference(objective):
        theirs = network(text, position_ids=positions).logits
        return theirs, objective.decoder.logits(objective.decoder(text, positions=positions).hidden)
