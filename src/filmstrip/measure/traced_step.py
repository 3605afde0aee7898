"""A training step counted without doing it: bytes alive at every moment, operations, transfer.

Forward pass, backward pass and update run on tensors without content (``FakeTensorMode``), as each process would run
them. So what is counted is what the code does, activation checkpointing, mixed precision and blocks of a long row
included, whatever the sizes. What kernels take for themselves while they run is not seen.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from filmstrip.protocols import Batch, Objective, Phase, SharesContext, SharesRows

_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class RingCall(NamedTuple):
    """The inputs of attention along a ring, of one process: causal, of queries ``B H N D``."""

    queries: torch.Size
    keys: torch.Size
    values: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class TracedStep:
    """What a process does in one step, over one micro-batch. Bytes are those of its own tensors."""

    weights: int
    """Bytes of parameters and buffers, trained or not."""
    frozen: int
    """Bytes of those that are not trained."""
    gradients: int
    """Bytes of all gradients, at the end of the backward pass."""
    optimiser: int
    """Bytes that the optimisers keep from step to step."""
    batch: int
    """Bytes of the micro-batch."""
    kept: float
    """Bytes of activations that are alive between the forward and the backward pass."""
    early: float
    """Maximum number of bytes alive at once beside weights, optimisers and the batch (activations and gradients),
    until the first block's gradients come."""
    late: float
    """The same from then on."""
    products: float
    """Floating-point operations (two for a multiply-add) of matrix products and convolutions, but those of
    attention in one call or along a ring."""
    attention: float
    """Operations of attention in one call or along a ring; causal attention counts the pairs that it needs."""
    traffic: float
    """Bytes that the operations read and write, each by itself."""
    sent: float
    """Bytes sent to the next process, but those of attention along a ring."""
    ring_calls: Mapping[RingCall, tuple[int, int]] = field(default_factory=dict)
    """Calls of attention along a ring, forward and backward, whose operations are not among those above."""
    early_at_ring: tuple[float, float] = (0.0, 0.0)
    """Maximum number of bytes alive at once as such forward and backward calls ended, as ``early`` counts them."""
    late_at_ring: tuple[float, float] = (0.0, 0.0)
    """The same, as ``late`` counts them."""

    @property
    def peak(self) -> float:
        """Maximum number of bytes of activations and gradients at once."""
        return max(self.early, self.late)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a process runs its step."""

    build: Callable[[Objective, Phase], Optimizer]
    """Makes the optimiser of a phase."""
    changed: Callable[[Objective], AbstractContextManager[Any]] = lambda objective: nullcontext()
    """Changes the objective meanwhile, such as by recomputing activations."""
    precision: str = "float32"
    """Precision of the forward and backward passes."""
    summed_in: Callable[[str], tuple[Hashable, float]] | None = None
    """The group of parameters with which a parameter's gradient is summed over processes, and the share of it that
    then stays, by the parameter's name; none if gradients stay whole."""
    gradients_stay: bool = False
    """Whether gradients take memory before the backward pass: those of earlier micro-batches, or DDP's buffers."""
    first_block: Callable[[str], bool] = lambda name: False
    """Whether a parameter belongs to the network's first block, by its name."""
    ring: int = 1
    """Number of processes that share the tokens of each row."""
    striped: bool = False
    """Whether each of these has every so many of a row's tokens, in place of adjacent ones."""
    in_blocks: bool = False
    """Whether a single process attends as along a ring, too."""
    processes: int = 1
    """Number of processes that share the rows of a batch."""


def trace_step(
    build: Callable[[], Objective], make: Callable[[Objective], Batch], options: StepOptions
) -> TracedStep:
    """Count a step of the objective that ``build`` makes, over the micro-batch that ``make`` makes for it."""
    with torch.device("meta"):
        objective = build()
    with FakeTensorMode():
        give_stand_ins(objective)
        batch = make(objective)
        ring = StandInRing(options.ring, striped=options.striped)
        if isinstance(objective, SharesContext) and (options.ring > 1 or options.in_blocks):
            objective.use_ring(ring)
        for part in objective.modules():
            if isinstance(part, SharesRows) and options.processes > 1:
                part.share_rows(ring.pass_on, options.processes, 0)
        with options.changed(objective):
            return _count(objective, batch, options, ring)


def _count(objective: Objective, batch: Batch, options: StepOptions, ring: CountingRing) -> TracedStep:
    objective.train()
    phases = list(objective.phases())
    optimisers = [options.build(objective, phase) for phase in phases]
    state = [*objective.parameters(), *objective.buffers()]
    given = [value for value in batch.values() if torch.is_tensor(value)]
    traced = Traced([*state, *given], ring_calls=ring.calls)
    groups = {}
    if options.summed_in is not None:
        groups = {param: options.summed_in(name) for name, param in objective.named_parameters()}
    first = {param for name, param in objective.named_parameters() if options.first_block(name)}
    kept = early = late = 0.0
    early_at_ring = late_at_ring = (0.0, 0.0)
    gradients = 0
    for phase, optimiser in zip(phases, optimisers):
        own = {param for group in optimiser.param_groups for param in group["params"]}
        others = [param for param in objective.parameters() if param.requires_grad and param not in own]
        for param in others:
            param.requires_grad_(False)
        before: list[tuple[float, list[float]]] = []
        trained_now = [param for param in own if param.requires_grad]
        sums = _Sums(traced, {param: groups[param] for param in trained_now if param in groups})
        if options.gradients_stay:
            for param in trained_now:
                param.grad = torch.zeros_like(param)
                traced.follow(param.grad)

        def arrived(param: Any, before: list[tuple[float, list[float]]] = before, sums: _Sums = sums) -> None:
            sums.arrived(param)
            if param in first and not before:
                before.append(traced.new_peak())

        hooks = [param.register_post_accumulate_grad_hook(arrived) for param in trained_now]
        traced.new_peak()
        with traced:
            with _autocast(options.precision):
                loss = objective(batch, phase=phase.name)
            kept = max(kept, traced.now)
            loss.total.backward()
            del loss
            optimiser_before = _state_bytes([optimiser])
        gradients = max(gradients, sum(_bytes(param.grad) for param in own if param.grad is not None))
        sums.end()
        peak, at_ring = traced.new_peak()
        late, late_at_ring = max(late, peak), _larger(late_at_ring, at_ring)
        if before:
            early, early_at_ring = max(early, before[0][0]), _larger(early_at_ring, before[0][1])
        for hook in hooks:
            hook.remove()
        if optimiser_before == 0:
            optimiser.step()
        for param in objective.parameters():
            param.grad = None
        for param in others:
            param.requires_grad_(True)
    trained = sum(_bytes(param) for param in objective.parameters() if param.requires_grad)
    weights = sum(_bytes(each) for each in state)
    return TracedStep(
        weights=weights,
        frozen=weights - trained,
        gradients=gradients,
        optimiser=_state_bytes(optimisers),
        batch=sum(map(_bytes, given)),
        kept=kept,
        early=early,
        late=late,
        early_at_ring=early_at_ring,
        late_at_ring=late_at_ring,
        products=traced.products,
        attention=traced.attention,
        traffic=traced.traffic,
        sent=ring.sent,
        ring_calls={call: (number[0], number[1]) for call, number in ring.calls.items()},
    )


class _Sums:
    """Gradients that FSDP sums over processes, group by group: whole until the last of a group is there, then copied
    to be sent. The copy stays until the next group's."""

    def __init__(self, traced: Traced, groups: Mapping[nn.Parameter, tuple[Hashable, float]]) -> None:
        self._traced, self._groups, self._sending = traced, groups, 0.0
        self._awaited = Counter(group for group, _ in groups.values())
        self._here: dict[Hashable, list[nn.Parameter]] = {}

    def arrived(self, param: nn.Parameter) -> None:
        if param not in self._groups:
            return
        group, _ = self._groups[param]
        here = self._here.setdefault(group, [])
        here.append(param)
        if len(here) == self._awaited[group]:
            self.end()
            self._sending = float(sum(map(_bytes, here)))
            self._traced.hold(self._sending)
            for each in here:
                if each.grad is not None:
                    self._traced.keep(each.grad, self._groups[each][1])

    def end(self) -> None:
        self._traced.hold(-self._sending)
        self._sending = 0.0


def _larger(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    return max(one[0], other[0]), max(one[1], other[1])


def _autocast(precision: str) -> AbstractContextManager[Any]:
    if precision == "float32":
        return nullcontext()
    return torch.autocast("cpu", dtype=getattr(torch, precision))


def give_stand_ins(objective: nn.Module) -> None:
    """Replace parameters and buffers on ``meta`` by tensors without content on the CPU; what is shared stays so."""
    known: dict[int, Tensor] = {}

    def stand_in(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            fresh = torch.empty(tensor.shape, dtype=tensor.dtype)
            known[id(tensor)] = (
                nn.Parameter(fresh, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fresh
            )
        return known[id(tensor)]

    for module in objective.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = cast(Any, stand_in(tensor))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _state_bytes(optimisers: Sequence[Optimizer]) -> int:
    """Bytes of the tensors of optimisers' states."""
    states = [state for optimiser in optimisers for state in optimiser.state.values()]
    return sum(_bytes(value) for state in states for value in state.values() if torch.is_tensor(value))


class CountingRing:
    """The ring of so many processes, as its last one sees it, that sends nothing and counts what it would send.

    Where each has adjacent tokens, the last one attends to those of all others, and so has most to do.
    """

    def __init__(self, size: int, *, striped: bool = False) -> None:
        self.rank, self.size, self.striped = size - 1, size, striped
        self.sent = 0.0
        """Bytes so far."""
        self.calls: dict[RingCall, list[int]] = {}
        """Numbers of forward and backward passes of attention that it was stood in for."""

    def start(self, tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """What arrives takes as much memory as what is sent."""
        sent = [tensor.contiguous() for tensor in tensors]
        received = [torch.empty_like(tensor) for tensor in sent]
        self.sent += sum(map(_bytes, sent))

        def arrived() -> list[Tensor]:
            sent.clear()
            return received

        return arrived

    def sum(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape."""
        return tensor.detach().clone()

    def maximum(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape."""
        return tensor.detach().clone()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """As many tensors of the same shape as there are processes."""
        return [tensor.detach().clone() for _ in range(self.size)]

    def pass_on(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape, with a gradient."""
        self.sent += 2 * _bytes(tensor)
        return tensor.clone()


class StandInRing(CountingRing):
    """A ring whose attention is one fused call, that keeps the same tensors for the backward pass and is noted.

    So a step of any length is counted at once; what attention along a ring takes, :mod:`filmstrip.measure.ring_cost`
    says.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention ``B H N D`` to this process's own keys and values."""
        self.calls.setdefault(RingCall(q.shape, k.shape, v.shape, q.dtype), [0, 0])
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


class Traced(TorchDispatchMode):
    """Inside the context, counts the operations on tensors, and the bytes of those that are alive.

    A storage counts once, from the operation that makes it until its last tensor is gone; those of ``known`` tensors
    do not count.
    """

    def __init__(self, known: Sequence[Tensor] = (), *, ring_calls: dict[RingCall, list[int]] | None = None) -> None:
        super().__init__()
        self._ring_calls = {} if ring_calls is None else ring_calls
        self.now = self.peak = 0.0
        """Bytes alive now, and at most so far."""
        self.at_ring = [0.0, 0.0]
        """Bytes alive at most as calls along a ring ended, forward and backward."""
        self.products = self.attention = self.traffic = 0.0
        self._alive: dict[int, tuple[Any, float]] = {}
        self._known = [tensor.untyped_storage() for tensor in known]  # held, so that their addresses stay theirs
        self._addresses = {storage._cdata for storage in self._known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = list(_tensors(out))
        for tensor in made:
            self.follow(tensor)
        self.peak = max(self.peak, self.now)
        if self._is_ring_call(func._overloadpacket, args):
            return out
        if made and not _is_view(func):
            self.traffic += sum(map(_bytes, made)) + sum(map(_bytes, _tensors(args)))
        self._operations(func, args, kwargs or {}, out)
        return out

    def new_peak(self) -> tuple[float, list[float]]:
        """The maxima so far, which begin anew."""
        found = self.peak, self.at_ring
        self.peak, self.at_ring = self.now, [0.0, 0.0]
        return found

    def keep(self, tensor: Tensor, share: float) -> None:
        """Count from now on only a share of a tensor."""
        key = tensor.untyped_storage()._cdata
        if key in self._alive:
            reference, size = self._alive[key]
            self.now -= (1 - share) * size
            self._alive[key] = reference, share * size

    def hold(self, size: float) -> None:
        """Count so many bytes more, or fewer, than those of tensors."""
        self.now += size
        self.peak = max(self.peak, self.now)

    def follow(self, tensor: Tensor) -> None:
        """Count a tensor until it is gone."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or key in self._addresses:
            return
        self._alive[key] = weakref.ref(storage, lambda _: self._gone(key)), storage.nbytes()
        self.now += storage.nbytes()

    def _gone(self, key: int) -> None:
        self.now -= self._alive.pop(key)[1]

    def _is_ring_call(self, packet: Any, args: Any) -> bool:
        """Whether a call stands in for attention along a ring; counts it."""
        if packet not in (_FUSED, _FUSED_BACKWARD) or not self._ring_calls:
            return False
        backward = packet is _FUSED_BACKWARD
        q, k, v = args[1:4] if backward else args[:3]
        number = self._ring_calls.get(RingCall(q.shape, k.shape, v.shape, q.dtype))
        if number is None or not args[7 if backward else 4]:
            return False
        number[backward] += 1
        self.at_ring[backward] = max(self.at_ring[backward], self.now)
        return True

    def _operations(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        packet = func._overloadpacket
        if packet in (_FUSED, _FUSED_BACKWARD):
            backward = packet is _FUSED_BACKWARD
            shapes = [tensor.shape for tensor in args[: 4 if backward else 3]]
            count = (sdpa_backward_flop_count if backward else sdpa_flop_count)(*shapes)
            place = 7 if backward else 4
            causal = args[place] if len(args) > place else kwargs.get("is_causal", False)
            keys = shapes[-1][-2]
            self.attention += count * ((keys + 1) / (2 * keys) if causal else 1)
        elif packet in flop_registry:
            self.products += flop_registry[packet](*args, **kwargs, out_val=out)


def _tensors(value: Any) -> Iterator[Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


@cache
def _is_view(func: Any) -> bool:
    if func._overloadpacket is torch.ops.aten._unsafe_view:
        return True  # says that it makes a tensor, and makes none
    returns = [each.alias_info for each in func._schema.returns]
    return bool(returns) and all(info is not None and not info.is_write for info in returns)
