"""Ego4D v2, long-term anticipation (Grauman et al. 2022): verbs and nouns of actions in egocentric clips.

``fho_lta_train.json`` and ``fho_lta_val.json`` list actions, ``{"clips": [{"clip_uid", "action_idx",
"action_clip_start_sec", "action_clip_end_sec", "verb_label", "noun_label", ...}]}``; ``fho_lta_taxonomy.json`` names
the verbs and nouns. Videos are the benchmark's clips, named by ``clip_uid``; the validation split is ``test`` here.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Literal

from filmstrip.data.annotations.files import find, read_json
from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.errors import UserError

FILES = {"train": "fho_lta_train.json", "test": "fho_lta_val.json"}


def read_ego4d(root: Path, vocabulary: Literal["verb", "noun"] = "verb") -> Annotations:
    """Ego4D's actions in ``root``, each step being an action's verb or its noun.

    Raises:
        UserError: a file is missing or invalid.
    """
    taxonomy = find(root, "fho_lta_taxonomy.json")
    names = read_json(taxonomy).get(f"{vocabulary}s")
    if not names:
        raise UserError(f"{taxonomy} names no {vocabulary}s")
    procedures = []
    for split, name in FILES.items():
        path = find(root, name)
        clips = defaultdict(list)
        try:
            for action in read_json(path)["clips"]:
                step = int(action[f"{vocabulary}_label"])
                if not 0 <= step < len(names):
                    raise UserError(f"{path} has the {vocabulary} {step}, and the taxonomy names {len(names)}")
                span = float(action["action_clip_start_sec"]), float(action["action_clip_end_sec"])
                clips[action["clip_uid"]].append((int(action["action_idx"]), Step(step, *span)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not annotated as Ego4D's long-term anticipation: {error!r}") from None
        # Actions overlap; the benchmark's own order is that of action_idx.
        for clip, actions in clips.items():
            steps = tuple(step for _, step in sorted(actions))
            procedures.append(Procedure(video=clip, split=split, steps=steps))
    return Annotations(root=root, steps=tuple(names), tasks=(), procedures=tuple(procedures))
