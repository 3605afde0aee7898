"""The folder of a run."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import filmstrip
from filmstrip.distributed import process
from filmstrip.distributed.tensors import gathered
from filmstrip.errors import UserError
from filmstrip.files import append_line, remove_parts, write_json, write_tensors, write_text
from filmstrip.protocols import EVALUATION, Objective
from filmstrip.runs.contents import (
    ENVIRONMENT,
    LAST,
    LOCK,
    METRICS,
    PROTOCOL,
    STATE,
    UNREADABLE,
    WEIGHTS,
    metrics_of,
)
from filmstrip.runs.saved_states import newest_state, saved_states, write_state
from filmstrip.train.store import SavedState

if TYPE_CHECKING:
    from filmstrip.data.reading.dataset import Unreadable


LOOK = 1.0
"""Time that a training waits for its folder's lock, seconds: :meth:`RunFolder.is_training` holds it for a moment."""


class RunFolder:
    """``config.json``, ``weights.safetensors``, ``state/``, ``metrics.jsonl``, TensorBoard events and the rest.

    It is what the training loop saves to (:class:`~filmstrip.train.store.Store`). Created if it does not exist. Every
    process calls its methods; only the first one writes.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def is_begun(path: Path) -> bool:
        """Whether a folder holds a state to resume from, and so weights too, which are written first."""
        return any((path / STATE).glob("[0-9]*"))

    @staticmethod
    def is_saved(path: Path) -> bool:
        """Whether a folder holds weights or states."""
        return RunFolder.is_begun(path) or (path / WEIGHTS).exists()

    @staticmethod
    def is_training(path: Path) -> bool:
        """Whether a training is at work in a folder; it is not disturbed."""
        if not (path / LOCK).exists():
            return False
        try:
            with FileLock(path / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder of another user, which cannot be locked
            return False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder against other trainings; the first process locks for all.

        The operating system releases the lock when the process ends, however that happens. A folder that is created
        here and stays empty is removed afterwards.

        Raises:
            UserError: another training runs in it.
        """
        if process.rank() != 0:
            yield
            return
        lock = FileLock(self.path / LOCK, timeout=LOOK)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"another training runs in {self.path}: wait until it ends, or choose another --out"
            ) from None
        try:
            remove_parts(self.path)
            yield
        finally:
            if self._made and [path.name for path in self.path.iterdir()] == [LOCK]:
                (self.path / LOCK).unlink()
                self.path.rmdir()
            lock.release()

    @property
    def weights(self) -> Path:
        """The trained weights and buffers; EMA weights if the run has them."""
        return self.path / WEIGHTS

    @property
    def state(self) -> Path:
        """The saved states, for resuming."""
        return self.path / STATE

    @property
    def metrics(self) -> Path:
        """The metrics, one JSON object per line."""
        return self.path / METRICS

    def newest_state(self) -> SavedState | None:
        """The newest intact state, or none if there are no states; logs a warning for damaged later ones.

        Raises:
            UserError: the folder holds other things, or every state is damaged.
        """
        # One process verifies for all, so that they agree, and files are read only once.
        return process.from_all(newest_state(self.state) if process.rank() == 0 else None)[0]

    def write_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Add a state, whose ``values`` include its ``step``; all but the last two are removed."""
        if process.rank() == 0:
            write_state(self.state, tensors, values)
        process.wait_for_all()

    def save_weights(self, objective: Objective, *, last: bool = False) -> None:
        """Write the current weights, without frozen parts that are kept elsewhere: those that are loaded, or those of
        the ``last`` step beside them."""
        tensors = gathered(objective.own_state())
        if process.rank() == 0:
            write_tensors(tensors, self.path / LAST if last else self.weights)
        process.wait_for_all()

    def read_weights(self, *, last: bool = False) -> dict[str, Tensor]:
        """The trained weights, without frozen parts that are kept elsewhere. Of a run that looked for its best step
        these are that one's, or those of its ``last`` step; of other runs both are the same.

        Raises:
            UserError: there are none yet, or they are damaged.
        """
        path = self.path / LAST if last and (self.path / LAST).exists() else self.weights
        if not path.exists():
            raise UserError(f"{self.path} holds no weights yet: let the run finish, or reach train.save_every steps")
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path} is damaged or cannot be read ({error}): restore a copy; or, if the folder still "
                "has its state/, resume training for some steps, which writes it again"
            ) from None

    def load_weights(self, objective: Objective, *, last: bool = False) -> None:
        """Load the weights of :meth:`read_weights` into an objective; frozen parts that are kept elsewhere stay as
        they are.

        Raises:
            UserError: there are none yet, or they are damaged or do not fit the objective.
        """
        try:
            objective.load_own_state(self.read_weights(last=last))
        except RuntimeError as error:
            raise UserError(f"{self.weights} does not fit the run's configuration: {error}") from None

    def evaluated(self, metric: str, until: int) -> list[tuple[int, float]]:
        """The steps up to ``until`` at which an evaluation in training recorded a metric, with its values; the first
        process reads for all."""
        found: list[tuple[int, float]] = []
        if process.rank() == 0:
            for row in metrics_of(self.path):
                if row["step"] <= until and PROTOCOL not in row and f"{EVALUATION}{metric}" in row:
                    found.append((row["step"], row[f"{EVALUATION}{metric}"]))
        return process.from_all(found)[0]

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        if process.rank() == 0:
            append_line(json.dumps(record), self.metrics)

    def last_step(self) -> int:
        """The last step recorded in ``metrics.jsonl``; zero for none."""
        return max((int(step) for step in map(_step_of, self._lines()) if step != float("inf")), default=0)

    def forget_metrics_after(self, step: int) -> None:
        """Remove the lines of later steps, which will be repeated, and a line that a crash truncated."""
        if process.rank() != 0 or not self.metrics.exists():
            return
        write_text("".join(f"{line}\n" for line in self._lines() if _step_of(line) <= step), self.metrics)

    def _lines(self) -> list[str]:
        """The lines of ``metrics.jsonl``; damaged bytes are replaced, so that the other lines survive."""
        if not self.metrics.exists():
            return []
        return self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()

    def write_unreadable(self, entries: Iterable[Unreadable]) -> None:
        """Append this process's unreadable files to ``unreadable.csv``; processes take turns."""
        from filmstrip.data.reading.loader import write_unreadable

        entries = list(entries)
        process.in_turn(lambda: write_unreadable(self.path / UNREADABLE, entries) if entries else None)

    def write_environment(self, device: torch.device) -> None:
        """Write the run's environment: versions, git hash, device, number of processes."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        environment = {
            "filmstrip": filmstrip.__version__,
            "git": git_hash(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": name or device.type,
            "processes": process.world_size(),
        }
        if process.rank() == 0:
            write_json(environment, self.path / ENVIRONMENT)


def what_is_saved(folder: Path) -> str:
    """A sentence on what a stopped training can resume from."""
    states = saved_states(folder / STATE)
    if not states:
        return f"nothing was saved in {folder}"
    return f"{folder} keeps the state after step {int(states[-1].name)}: the same command with --out {folder} goes on"


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # truncated or damaged
        return float("inf")


def git_hash() -> str | None:
    """The commit of this package's sources; none outside a checkout."""
    here = Path(__file__)
    # An installed copy can lie inside an unrelated repository, whose commit would be meaningless.
    tracked = ["git", "-C", str(here.parent), "ls-files", "--error-unmatch", here.name]
    head = ["git", "-C", str(here.parent), "rev-parse", "HEAD"]
    try:
        subprocess.run(tracked, capture_output=True, check=True, timeout=5)
        return subprocess.run(head, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
