"""Cost of a network, counted without running it: parameters, multiply-adds, tokens, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.kinds.kind import check_requires
from filmstrip.data.labels import check_labels
from filmstrip.errors import UserError
from filmstrip.measure.measurable import Measurable
from filmstrip.protocols import Batch, Objective, find_encoder

_UNKNOWN = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)
_ADAMW_BYTES = 16  # a parameter, its gradient and two moments, float32


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """The cost of a system. Multiply-adds are what most papers call FLOPs."""

    parameters: int
    """Parameters of the whole objective."""
    multiply_adds: int
    """Multiply-adds of the forward pass of the training loss, for one clip."""
    encoder_parameters: int | None
    """Parameters of the encoder, if there is one."""
    encoder_multiply_adds: int | None
    """Multiply-adds of encoding one clip without masking."""
    tokens: int | None
    """Number of tokens of one clip."""
    activations: int
    """Memory of activations kept for the backward pass of one clip, bytes, float32."""

    def training_memory(self, batch_size: int) -> int:
        """Memory of a step of ``batch_size`` clips in float32, bytes: weights, gradients, AdamW moments,
        activations."""
        return _ADAMW_BYTES * self.parameters + batch_size * self.activations

    def table(self) -> Table:
        """A table for display: millions, billions, mebibytes."""
        rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        rows.add_row("parameters", f"{self.parameters / 1e6:.2f} M", "")
        rows.add_row("multiply-adds", f"{self.multiply_adds / 1e9:.2f} G", "loss of one clip, forward")
        if self.encoder_parameters is not None and self.encoder_multiply_adds is not None:
            rows.add_row("encoder", f"{self.encoder_parameters / 1e6:.2f} M", "parameters")
            rows.add_row("", f"{self.encoder_multiply_adds / 1e9:.2f} G", "multiply-adds for one clip")
            rows.add_row("tokens", f"{self.tokens}", "from one clip")
        fixed, each = self.training_memory(0) / 2**20, self.activations / 2**20
        rows.add_row("training memory", f"{fixed:.0f} MiB", f"and {each:.0f} MiB for each clip, float32")
        return rows


def of_run(run: Measurable) -> Complexity:
    """The cost of a run's system, without allocating its weights.

    Raises:
        UserError: it cannot be built, or does not accept the data's clips.
    """
    with refusing(run):
        with torch.device("meta"):
            objective = run.objective.build()
        sizes = run.data.reads.sizes(run.data, run.objective)
        if sizes is None:
            raise UserError("what was encoded comes in shapes of its own: give a run on videos")
        return _measure(objective, partial(blank_batch, run, objective, {"B": 1, **sizes}))


def try_out(run: Measurable) -> None:
    """Check that a run's network can be built and accepts the data's clips, without allocating its weights.

    Raises:
        UserError: it does not; the message names the reason.
    """
    with refusing(run):
        with torch.device("meta"):
            objective = run.objective.build()
        kind = run.data.reads
        name = type(objective).__name__
        check_requires(name, objective.requires, kind.specification.keys, f"data.reads ({type(kind).__name__})")
        if "label" in objective.requires:
            check_labels(name, objective.takes_labels, getattr(run.objective, "labels", "class"))
        sizes = kind.sizes(run.data, run.objective)
        if sizes is None:  # only the data say them
            return
        with FakeTensorMode(), torch.no_grad():
            # Two rows, since a norm over one alone says no where a real batch would pass.
            batch = blank_batch(run, objective, {"B": 2, **sizes})
            # Of what depends on values, of which there are none here, nothing can be said.
            with suppress(*_UNKNOWN):
                functional_call(objective, _stand_ins(objective), batch)


def blank_batch(run: Measurable, objective: Objective, sizes: dict[str, int]) -> Batch:
    """A batch of zeros, with labels such as the objective's."""
    batch = run.data.reads.specification.blank(sizes)
    if "label" in batch and objective.labels != "class":
        batch["label"] = torch.zeros(sizes["B"], sizes["K"])
    return batch


@contextmanager
def refusing(run: Measurable) -> Iterator[None]:
    """Convert a network's shape errors into a message for the user.

    Raises:
        UserError: the body failed with such an error.
    """
    try:
        yield
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        shown = run.data.reads.shown(run.data)
        raise UserError(f"{type(run.objective).__name__} does not fit {shown}: {reason}") from error


def measure(objective: Objective, clip: Clip) -> Complexity:
    """Count what one clip costs. ``objective`` may live on any device, ``meta`` included; it is left as it was."""
    sizes = Clips().sizes(Data(clip=clip), None)
    return _measure(objective, partial(Clips.specification.blank, {"B": 1, **sizes}))


def _measure(objective: Objective, make: Callable[[], Batch]) -> Complexity:
    """Count what the one sample that ``make`` makes costs."""
    encoder = find_encoder(objective)
    with FakeTensorMode():
        batch = make()
        state = _stand_ins(objective)
        kept = _Kept(known=state.values())
        with flop_counter() as loss, saved_tensors_hooks(kept.pack, kept.unpack):
            functional_call(objective, state, batch)
        tokens = None
        if encoder is not None:
            with flop_counter() as encoding, torch.no_grad():
                tokens = functional_call(encoder, _stand_ins(encoder), batch["video"]).tokens.shape[1]
    return Complexity(
        parameters=_count(objective),
        multiply_adds=loss.get_total_flops() // 2,
        encoder_parameters=None if encoder is None else _count(encoder),
        encoder_multiply_adds=None if encoder is None else encoding.get_total_flops() // 2,
        tokens=tokens,
        activations=kept.bytes,
    )


def training_multiply_adds(objective: Objective, batch: Batch) -> int:
    """Multiply-adds of the forward and the backward pass of a batch's loss; both live on the ``meta`` device."""
    with flop_counter() as counter:
        objective(batch).total.backward()
    return counter.get_total_flops() // 2


def flop_counter() -> FlopCounterMode:
    """A counter of floating-point operations, two per multiply-add, that includes the CPU's fused attention."""

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, **kwargs: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(
        grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **kwargs: Any
    ) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={fused: attention, fused_backward: backward})


def _stand_ins(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of the shapes of a module's parameters and buffers; in a fake mode they take no memory."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: torch.empty(t.shape, dtype=t.dtype).requires_grad_(t.requires_grad) for name, t in tensors}


class _Kept:
    """Sums the storages that autograd keeps besides the known ones; a shared storage counts once."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.bytes = 0
        # Storages are kept alive here, so that addresses are unique.
        self._seen = {t.untyped_storage()._cdata: t.untyped_storage() for t in known}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage
            self.bytes += storage.nbytes()
        return tensor

    def unpack(self, tensor: Tensor) -> Tensor:
        return tensor


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
