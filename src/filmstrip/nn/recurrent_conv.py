"""Convolutional recurrent layers: a recurrent network at every position of a feature map.

The matrix products of an RNN, a GRU and an LSTM become convolutions (Ballas et al. 2016; Shi et al. 2015 for the
LSTM). Input projections are computed for all frames at once; only the state update is sequential.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from filmstrip.nn.conv import SpatialConv


class RecurrentConv(nn.Module):
    """``B C T H W -> B D T H W``, causal; ``gates`` maps of ``D`` channels are computed from input and state."""

    gates: int

    def __init__(self, inputs: int, width: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.width = width
        self.of_input = SpatialConv(inputs, self.gates * width, kernel=kernel, stride=stride, bias=True)
        self.of_state = nn.Conv2d(width, self.gates * width, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The state after each frame; the initial state is zero."""
        projected = self.of_input(x)
        shape = (x.shape[0], self.width, *projected.shape[3:])
        state = self.first_state(projected.new_zeros(shape))
        seen = []
        for frame in projected.unbind(dim=2):
            state = self.step(frame, state)
            seen.append(state[0])
        return torch.stack(seen, dim=2)

    def first_state(self, zeros: Tensor) -> tuple[Tensor, ...]:
        """The initial state; its first part is the layer's output."""
        return (zeros,)

    @abstractmethod
    def step(self, projected: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state, from the convolved input ``B (gates D) H W`` and the last state."""


class ConvRNN(RecurrentConv):
    """``h = tanh(W * x + U * h)``."""

    gates = 1

    def step(self, projected: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state."""
        return (torch.tanh(projected + self.of_state(state[0])),)


class ConvGRU(RecurrentConv):
    """A convolutional GRU: an update gate interpolates states, a reset gate masks the last state in the candidate."""

    gates = 3

    def step(self, projected: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state."""
        (last,) = state
        gate_weight, new_weight = self.of_state.weight.split((2 * self.width, self.width))
        padding = self.of_state.padding
        of_gates, of_new = projected.split((2 * self.width, self.width), dim=1)
        gates = torch.sigmoid(of_gates + nn.functional.conv2d(last, gate_weight, padding=padding))
        update, reset = gates.chunk(2, dim=1)
        new = torch.tanh(of_new + nn.functional.conv2d(reset * last, new_weight, padding=padding))
        return (torch.lerp(last, new, update),)


class ConvLSTM(RecurrentConv):
    """A convolutional LSTM with input, forget and output gates; the forget gate's bias is raised by one."""

    gates = 4

    def __init__(self, inputs: int, width: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, width, kernel=kernel, stride=stride)
        with torch.no_grad():
            self.of_input.bias[width : 2 * width] += 1

    def first_state(self, zeros: Tensor) -> tuple[Tensor, ...]:
        """State and cell."""
        return zeros, zeros

    def step(self, projected: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state and cell."""
        last, cell = state
        gates, new = (projected + self.of_state(last)).split((3 * self.width, self.width), dim=1)
        enter, keep, leave = torch.sigmoid(gates).chunk(3, dim=1)
        cell = keep * cell + enter * torch.tanh(new)
        return leave * torch.tanh(cell), cell


CELLS = {"rnn": ConvRNN, "gru": ConvGRU, "lstm": ConvLSTM}
