"""Attention to one part of the keys by a fused kernel that tells the log-sum-exp of the scores, too.

Parts are merged by it (:mod:`filmstrip.nn.blockwise`); in the backward pass the kernel is given the output and the
log-sum-exp of all parts, from which it computes a part's weights anew (Dao 2023, FlashAttention-2). On a GPU it is
torch's flash kernel, for 16-bit tensors; tests try the same steps with that for a CPU, and not the GPU's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Kernel(NamedTuple):
    """A fused kernel of a kind of device."""

    forward: Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor]]
    """Output ``B H N D`` and log-sum-exp ``B H N`` of queries, keys and values; causal or not."""
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """Gradients of queries, keys and values, from that of the output, these, output and log-sum-exp."""
    dtypes: tuple[torch.dtype, ...]


def _flash(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)
    return out, lse


def _flash_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    unused = torch.zeros(
        2, dtype=torch.uint64, device=q.device
    )  # the state of random numbers, of which there are none
    return torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad, q, k, v, out, lse, None, None, q.shape[2], k.shape[2], 0.0, causal, unused, unused[:0]
    )


KERNELS: dict[str, Kernel] = {"cuda": Kernel(_flash, _flash_gradients, (torch.float16, torch.bfloat16))}
"""The kernel of a kind of device. On a CPU matrix products in blocks are as fast, and exact in float32."""


def kernel_for(q: Tensor, k: Tensor, v: Tensor) -> Kernel | None:
    """The kernel that takes such queries, keys and values, if there is one."""
    found = KERNELS.get(q.device.type)
    same = q.dtype == k.dtype == v.dtype and q.shape[-1] == v.shape[-1]
    fits = found is not None and same and q.dtype in found.dtypes and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
    return found if fits else None
