"""Parts of attention by a fused kernel: the steps are those on a GPU, the kernel here is torch's for a CPU."""

import pytest
import torch

from filmstrip.nn import fused_attention
from filmstrip.nn.blockwise import Gradients, Part, RunningSoftmax, attend_in_blocks
from filmstrip.nn.fused_attention import Kernel


def forward(q, k, v, causal):
    calls.append(causal)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)


def backward(grad, q, k, v, out, lse, causal):
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, lse, 0.0, causal)


calls = []


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request, monkeypatch):
    monkeypatch.setitem(fused_attention.KERNELS, "cpu", Kernel(forward, backward, (request.param,)))
    calls.clear()
    return request.param


@pytest.mark.parametrize("step", [1, 3], ids=["adjacent", "striped"])
def test_parts_are_merged_to_attention_at_once(dtype, step, monkeypatch):
    """One process of a ring of three: its own keys, those that come before, and those behind or beside them."""
    torch.manual_seed(0)
    q, k, v, weight = (torch.randn(2, heads, 36, 8).to(dtype) for heads in (4, 2, 2, 4))
    q = q * 8
    shares = [range(n, 36, 3) if step == 3 else range(12 * n, 12 * n + 12) for n in range(3)]
    own = Part(shares[1])
    mine = [x[:, :, shares[1].start : shares[1].stop : step] for x in (q, weight)]
    held = [[x[:, :, part.start : part.stop : step] for x in (k, v)] for part in shares]

    softmax = RunningSoftmax(mine[0], 2, 8, block=5)
    for part, keys in zip(shares, held):
        softmax.add(*keys, own, Part(part), causal=True)
    out, lse = softmax.result()
    gradients = Gradients(mine[0], out, lse, mine[1], 2, block=5)
    found = [gradients.add(*keys, own, Part(part), causal=True) for part, keys in zip(shares, held)]
    assert calls == ([True, True] if step == 3 else [False, True])

    monkeypatch.delitem(fused_attention.KERNELS, "cpu")
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    exact = attend_in_blocks(*leaves)
    chosen = exact[:, :, shares[1].start : shares[1].stop : step]
    of_q, of_k, of_v = torch.autograd.grad((chosen * mine[1]).sum(), leaves)
    expected = [of_q[:, :, shares[1].start : shares[1].stop : step], of_k, of_v]
    got = [gradients.of_queries.flatten(1, 2)]
    for number in range(2):
        whole = torch.zeros_like(of_k)
        for part, each in zip(shares, found):
            whole[:, :, part.start : part.stop : step] = each[number]
        got.append(whole)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip([out, *got], [chosen, *expected], strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


def test_what_no_kernel_takes_is_left_to_blocks(monkeypatch):
    fitting, odd = torch.zeros(1, 1, 4, 8).half(), torch.zeros(1, 1, 4, 12).half()
    assert fused_attention.kernel_for(fitting, fitting, fitting) is None
    monkeypatch.setitem(fused_attention.KERNELS, "cpu", Kernel(forward, backward, (torch.half,)))
    assert fused_attention.kernel_for(fitting, fitting, fitting) is not None
    for given in ((odd, odd, odd), (fitting.float(),) * 3, (fitting, fitting, odd)):
        assert fused_attention.kernel_for(*given) is None


@pytest.mark.gpu
def test_the_kernel_of_a_gpu_agrees():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 64, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    exact = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in (q, k, v)), is_causal=True)
    for one, other in zip(
        (attend_in_blocks(q, k, v), *torch.autograd.grad(attend_in_blocks(q, k, v).sum(), (q, k, v))),
        (exact, *torch.autograd.grad(exact.sum(), (q, k, v))),
    ):
        assert (one - other).abs().max() <= 5e-2
