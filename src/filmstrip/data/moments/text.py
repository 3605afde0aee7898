"""Features of queries: of a public folder of arrays, of a frozen text encoder, or random vectors of words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.procedures.clips import ARRAYS, read_array
from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError

TOKENS = ("last_hidden_state",)
"""Names that features of words have among a query's arrays."""
BATCH = 64
"""Number of sentences that are encoded at once."""


class QueryFeatures(Protocol):
    """Features of a query's words."""

    @property
    def width(self) -> int:
        """The dimension of a feature."""
        ...

    def words(self, name: str, text: str) -> Tensor:
        """The features of the words of a query, ``L E`` float32, from its name or its text.

        Raises:
            OSError: they cannot be read.
        """
        ...


class WordVectors:
    """A random unit vector for each word, for learning without a language model; order is lost."""

    def __init__(self, width: int, seed: int) -> None:
        self.width = width
        self._seed = seed
        self._known: dict[str, Tensor] = {}

    def words(self, name: str, text: str) -> Tensor:
        """A row for each word, in lower case; a sentence without any has an empty one."""
        return torch.stack([self.vector(word) for word in re.findall(r"\w+", text.lower()) or [""]])

    def vector(self, word: str) -> Tensor:
        """The vector of a word, ``E``."""
        if word not in self._known:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "word", word))
            vector = torch.randn(self.width, generator=generator)
            self._known[word] = vector / vector.norm()
        return self._known[word]


class QueryArrays:
    """Folders with an array of each query, named by it (``qid7803.npz`` or ``7803.npy``), ``L E``; side by side."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Look at the first files for the width.

        Raises:
            UserError: a folder holds none, or one cannot be read.
        """
        self._files = [_arrays(Path(folder).expanduser()) for folder in folders]
        try:
            self.width = sum(read_array(next(iter(files.values())), TOKENS).shape[1] for files in self._files)
        except OSError as error:
            raise UserError(str(error)) from None

    def words(self, name: str, text: str) -> Tensor:
        """The rows of a query's arrays, as many as the shortest has."""
        found = []
        for files in self._files:
            if name not in files:
                raise OSError(f"there are no features of the query {name}: {text!r}")
            found.append(read_array(files[name], TOKENS).astype(np.float32))
        least = min(len(rows) for rows in found)
        return torch.from_numpy(np.concatenate([rows[:least] for rows in found], axis=1))


class TextEncoder:
    """A frozen text encoder of ``transformers`` in a local folder of the Hub's layout: its last hidden states."""

    def __init__(self, folder: Path) -> None:
        """Load it.

        Raises:
            UserError: the folder holds none, or transformers is not installed.
        """
        self.folder = Path(folder).expanduser()
        self.fingerprint, self._tokenizer, self._network = _load(self.folder)
        config = self._network.config
        self.width: int = config.hidden_size
        self._most: int = config.max_position_embeddings
        self._known: dict[str, Tensor] = {}

    def words(self, name: str, text: str) -> Tensor:
        """The states of a sentence's tokens."""
        if text not in self._known:
            self.learn([text])
        return self._known[text].float()

    def learn(self, texts: Sequence[str]) -> None:
        """Encode many sentences at once; each is kept in half precision."""
        new = sorted(set(texts) - self._known.keys(), key=len)
        for start in range(0, len(new), BATCH):
            some = new[start : start + BATCH]
            tokens = self._tokenizer(some, padding=True, truncation=True, max_length=self._most, return_tensors="pt")
            with torch.inference_mode():
                states = self._network(**tokens).last_hidden_state
            for text, rows, mask in zip(some, states, tokens["attention_mask"]):
                self._known[text] = rows[mask.bool()].half().clone()


def sentence(words: Tensor) -> Tensor:
    """One vector for a query from those of its words, ``L E -> E``: their mean."""
    return words.mean(dim=0)


def _arrays(folder: Path) -> Mapping[str, Path]:
    files = {
        file.stem.removeprefix("qid"): file
        for file in (sorted(folder.rglob("*")) if folder.is_dir() else ())
        if file.suffix in ARRAYS
    }
    if not files:
        raise UserError(f"{folder} holds no arrays of queries, such as qid7803.npz")
    return files


@cache
def _load(folder: Path) -> tuple[str, Any, Any]:
    """Fingerprint, tokenizer and network; once in a process, since several collections may share them."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder} is no folder of a text encoder in the Hub's layout: it has no *.safetensors")
    try:
        from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModel
    except ImportError:
        raise UserError("a text encoder needs transformers: pip install 'filmstrip[language]'") from None
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(folder, **local).model_type
        network = (CLIPTextModel if kind.startswith("clip") else AutoModel).from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, **local
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no text encoder that transformers can load: {error}") from None
    digest = hashlib.sha256()
    for file in weights:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest(), tokenizer, network.eval().requires_grad_(False)
