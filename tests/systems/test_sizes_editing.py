"""Editors have the papers' sizes: millions of parameters of the U-Net, the encoder of texts and the autoencoder."""

import pytest
import torch
from drawn import info_for
from sizes import unnamed

from filmstrip import systems
from filmstrip.models.video_unet import VideoUNetArchitecture
from filmstrip.systems.editing.depth_control import DepthBranch

# The U-Net (thesis: 1.4 B), the frozen Flan-T5-XXL with the layer behind it, and Stable Diffusion's autoencoder.
TEXT, VAE = 4762.3 + 4.2, 83.65
SIZES = {
    "editing.moca:latent_256": (1411.2, TEXT, VAE),
    "editing.sdedit:text_to_video_256": (1411.2, TEXT, VAE),
    "editing.masactrl:text_to_video_256": (1411.2, TEXT, VAE),
    "editing.dreamix:text_to_video_256": (1411.2, TEXT, VAE),
    "editing.depth_control:text_to_video_256": (1411.2, TEXT, VAE),
    # Layers over time are added to Stable Diffusion 2's network, and not trained but on a video.
    "editing.tune_a_video:text_to_image_256": (1411.2, TEXT, VAE),
    # Stable Diffusion 2's network.
    "editing.sdedit:text_to_image_256": (865.9, TEXT, VAE),
    "editing.tokenflow:text_to_image_256": (865.9, TEXT, VAE),
}
OF_IMAGES = 865.9


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize("address", SIZES)
def test_sizes(address):
    run = systems.find(address)
    run = run.bound(info_for(run.data.reads))
    with torch.device("meta"):
        objective = run.objective.build()
    found = (millions(objective.unet), millions(objective.text) + millions(objective.text_in))
    unet, text, vae = SIZES[address]
    assert found == pytest.approx((unet, text), rel=0.001)
    assert millions(objective.tokenizer) == pytest.approx(vae, rel=0.001)
    assert objective.latent_size(256, 256) == (32, 32) and objective.latent_dim == 4
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad) / 1e6
    if address.startswith("editing.depth_control"):  # the branch alone: the way down, the middle and what is added
        assert trained == pytest.approx(millions(objective.branch) + 4.2, rel=0.01)
        return
    learns_images = address.startswith("editing.tune_a_video")
    assert trained == pytest.approx((OF_IMAGES if learns_images else unet) + 4.2, rel=0.01)


def test_the_branch_of_a_network_of_images_is_as_large_as_the_published_control_net():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        ours = DepthBranch(VideoUNetArchitecture(temporal=False), (16, 32, 96, 256), inputs=4)
        theirs = diffusers.ControlNetModel(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20))
    assert millions(ours) == millions(theirs)
    assert millions(ours) == pytest.approx(364.2, abs=0.1)


def test_every_preset_of_the_papers_is_here():
    assert unnamed("editing", SIZES) == set()
