"""One preset in full."""

from __future__ import annotations

import json

from rich.console import Console

from filmstrip.measure import complexity, receptive_field
from filmstrip.runs.config import Run, to_json
from filmstrip.runs.teachers import with_teachers
from filmstrip.runs.tokenizers import with_tokenizer


def show(run: Run, console: Console) -> None:
    """Print a run's configuration, what each layer of a plain chain sees, and what it costs; builds no weights.

    Raises:
        UserError: its tokenizer's run is not a run folder, or its network does not fit its clips.
    """
    run = with_teachers(with_tokenizer(run))
    complexity.try_out(run)
    console.print_json(json.dumps(to_json(run)))
    if receptive_field.is_chain(layers := receptive_field.of_run(run)):
        console.print(receptive_field.table(layers, run.data.clip), "")
    console.print(complexity.of_run(run).table())
