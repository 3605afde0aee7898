"""Processes that share the tokens of clips: their losses are those of one, and so is the mean of their gradients."""

import itertools

import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.distributed.mesh import Axis, Mesh, share_context
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.nn.sampling import Sampling
from filmstrip.runs.answers import share_decoding
from filmstrip.train.blocks import find_blocks

SYSTEMS = [
    # what is trained, changes to its configuration, whether the tokens are striped
    ("pretraining.videomae:tiny", {}, False),
    ("generation.videogpt:tiny", {"condition_drop": 0.0, "attention": "full"}, True),
    ("generation.videogpt:tiny", {"condition_drop": 0.0, "attention": "sparse", "depth": 2}, False),
    ("language.llava:tiny", {"trains": ("encoder", "connector", "decoder")}, False),
    ("language.lwm_text:tiny", {"window": 5}, True),
]


class Connected:
    """What torch's mesh of processes is asked for."""

    def __init__(self, group):
        self.group = group

    def get_group(self, name):
        return self.group


def learnt(name, changes):
    """An objective in training, and a batch, with the weights and numbers of every process."""
    from dataclasses import replace

    run = systems.find(name)
    if "window" in changes:
        changes = {"decoder": replace(run.objective.decoder, **changes)}
    run = replace(run, objective=replace(run.objective, **changes)).bound(info_for(run.data.reads))
    torch.manual_seed(0)
    return run.objective.build().train(), draw_batch(run.data, size=2, seed=0)


def loss_and_gradients(objective, batch):
    torch.manual_seed(1)
    loss = objective(batch).total
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def check_system(ring, name, changes):
    expected, gradients = loss_and_gradients(*learnt(name, changes))
    objective, batch = learnt(name, changes)
    frames = []
    if name == "language.llava:tiny":
        objective.encoder.register_forward_hook(lambda encoder, given, out: frames.append(given[0].shape[:2].numel()))
    mesh = Mesh(context=Axis(ring.rank, ring.size))
    share_context(objective, mesh, Connected(ring.group), find_blocks(objective), striped=ring.striped)
    loss, own = loss_and_gradients(objective, batch)
    assert (loss - expected).abs() <= 1e-5 * expected.abs(), (name, loss, expected)
    assert own.keys() == gradients.keys()
    for key, gradient in gradients.items():
        mean = ring.sum(own[key]) / ring.size
        assert (mean - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, (name, changes, key)
    if frames:
        total = batch["video"].shape[:2].numel()
        assert frames == [-(-total // ring.size)], "each encodes its share of the frames"


def check_writing(ring):
    """Processes that share a prompt, and what is remembered of it, write what one would."""
    sizes = {"vocab_size": 50, "width": 32, "depth": 2, "num_heads": 4, "num_kv_heads": 2, "mlp_dim": 48}
    torch.manual_seed(0)
    decoders = [Decoder(DecoderConfig(**sizes, window=window)).eval() for window in (None, 6)]
    prompt, drawn, padding = torch.randint(50, (2, 13)), torch.rand(2, 9), torch.tensor([0, 4])
    for decoder, options in itertools.product(decoders, ({}, {"padding": padding})):
        given = (prompt, drawn, Sampling(temperature=1.0))
        expected = torch.stack([*decoder.decode(*given, **options)])
        share_decoding(torch.nn.Sequential(decoder), ring)
        assert torch.stack([*decoder.decode(*given, **options)]).equal(expected), (ring.size, options)
        decoder.ring = None
