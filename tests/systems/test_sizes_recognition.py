"""Recognisers have the papers' sizes: millions of parameters, and giga multiply-adds for one clip."""

import dataclasses

import pytest
from sizes import one_of_each, size_of, unnamed

from filmstrip import systems
from filmstrip.measure import complexity

CLASSIFIERS = {
    "recognition.vit:small_k400": (22, 57),
    "recognition.vit:base_k400": (87, 180),
    "recognition.vit:large_k400": (305, 597),
    "recognition.vit:huge_k400": (633, 1192),
    # VideoMAE V2's table: 38.16 T for 5 clips of 3 crops, 1013 M.
    "recognition.vit:giant_k400": (1013, 2544),
    "recognition.vit:giant_k710": (1013, 2544),
    "recognition.vit:giant_k400_from_k710": (1013, 2544),
    "recognition.vit:giant_ssv2": (1013, 2544),
    "recognition.vit:small_ssv2": (22, 57),
    "recognition.vit:base_ssv2": (87, 180),
    "recognition.vit:large_ssv2": (305, 597),
    "recognition.timesformer:base_k400": (121.4, 196),
    "recognition.timesformer:hr_k400": (121.4, 1703),
    "recognition.timesformer:large_k400": (121.4, 2380),
    "recognition.vivit:base_k400": (88.9, 455.2),
    "recognition.vivit:base_k400_encoder": (115.1, 284.4),
    "recognition.vivit:base_k400_attention": (117.3, 372.3),
    "recognition.vivit:base_k400_heads": (88.9, 277.1),
    # The adapter by hand, for nothing is printed of it: 0.593M parameters, and 0.058 G multiply-adds in each step.
    "recognition.vivit:base_k400_frozen": (115.1 + 0.593, 284.4 + 16 * 0.058),
    "recognition.vivit:large_k400": (354.9, 3980),
    # MViT's tables give 114.0M, of which 0.6M lie in a layer that nothing reads, and 4218 G for 250 frames without
    # the products within attention: 12 layers of 2 x 197^2 x 768 for each frame.
    "recognition.vtn:base_k400": (113.4, 16 / 250 * 4218 + 16 * 12 * 2 * 197**2 * 768e-9),
    "recognition.vtn:base_k400_whole": (113.4, 4218 + 250 * 12 * 2 * 197**2 * 768e-9),
    "recognition.r2plus1d:r2plus1d_18_k400": (31.505325, 40.52),
    "recognition.c3d:sports1m": (65.310951, 38.497),
    "recognition.c3d:sports1m_released": (79.991015, 38.497),
    "recognition.c3d:ucf101": (78.41, 38.497),
    "recognition.mvit:v1_base_16x4_k400": (36.6, 70.5),
    "recognition.mvit:v1_base_32x3_k400": (36.6, 170),
    "recognition.mvit:v1_base24_32x3_k400": (52.9, 236),
    "recognition.mvit:v2_small_k400": (34.5, 64.2),
    "recognition.mvit:v2_base_k400": (51.2, 225),
    # 217.6M in the public table for Kinetics-400, 213.1M for the same network with 174 classes.
    "recognition.mvit:v2_large_k400": (213.1 + 0.26, 2828),
    # The paper has T and S for images only: counted here.
    "recognition.hiera:tiny_k400": (27.48, 50.85),
    "recognition.hiera:small_k400": (34.58, 69.51),
    "recognition.hiera:base_k400": (51, 102),
    "recognition.hiera:base_plus_k400": (69, 133),
    "recognition.hiera:large_k400": (213, 413),
    "recognition.hiera:huge_k400": (672, 1159),
    # The public table's 47.2 G of pictures of 384 x 384, for one of 896 x 896; it has no S for video.
    "recognition.unireplknet:base_k400": (98, 47.2 * (896 / 384) ** 2),
    "recognition.unireplknet:small_k400": (56, 147.5),
    "recognition.video_swin:tiny_k400": (28.2, 87.9),
    "recognition.video_swin:small_k400": (49.8, 165.9),
    "recognition.video_swin:base_k400": (88.1, 281.6),
    "recognition.video_swin:large_k400": (197, 604),
    "recognition.video_swin:base_ssv2": (88.8, 320.6),
    "recognition.uniformer:small_16x4_k400": (21.4, 167 / 4),
    "recognition.uniformer:base_16x4_k400": (49.8, 387 / 4),
    "recognition.uniformer:base_32x4_k400": (49.8, 1036 / 4),
    "recognition.uniformer:base_32_ssv2": (49.8, 777 / 3),
    # Counted here; twelve of the first and three of the last are the paper's 1.8, 8.0, 0.6 and 2.6 T.
    "recognition.uniformer_v2:b16_8_k400": (115, 148.1),
    "recognition.uniformer_v2:l14_8_k400": (354, 665.6),
    "recognition.uniformer_v2:b16_16_ssv2": (163, 187.2),
    "recognition.uniformer_v2:l14_16_ssv2": (574, 858.2),
    # The encoders' own, without UniFormerV2's head, and by hand: attention between tokens of widths w and c, of which
    # N ask M, has 10 w^2 + 2 c w weights and costs N (10 w^2 + 2 M w) + 2 M c w.
    "recognition.internvideo:base_k400": (86.2 + 114.3 + 3 * 7.1, 180 + 148.1 + 2 * 14.9 + 1.9),
    "recognition.internvideo:huge_k400": (631 + 353.7 + 5 * 19 + 13.1, 1192 + 665.6 + 5 * 39.3 + 4.1),
    "recognition.internvideo:huge_ssv2": (631 + 573.8 + 5 * 19 + 13.1, 1192 + 858.2 + 5 * 39.3 + 4.1),
    # SlowFast's paper counts crops of 256 pixels, on which every map has (8 / 7)^2 as many places as on 224.
    "recognition.slowfast:r50_4x16_k400": (34.4, 36.1 * (7 / 8) ** 2),
    "recognition.slowfast:r50_8x8_k400": (34.5, 65.7 * (7 / 8) ** 2),
    "recognition.slowfast:r101_8x8_k400": (53.7, 106 * (7 / 8) ** 2),
    "recognition.slowfast:r101_16x8_k400": (53.7, 213 * (7 / 8) ** 2),
    "recognition.x3d:xs_k400": (3.76, 0.60),
    "recognition.x3d:s_k400": (3.76, 1.96),
    "recognition.x3d:m_k400": (3.76, 4.73),
    "recognition.x3d:l_k400": (6.15, 18.37),
    # Parameters as in SlowFast's table of its peers; operations counted here, for none are published for these clips.
    "recognition.nonlocal_net:r50_k400": (35.3, 182.01),
    "recognition.nonlocal_net:r50_8x8_k400": (35.3, 36.535),
    # SlowFast's table gives 12.0M and 108 G, without the classifier's weights, and counted by others. The released
    # weights fit these layers one to one (tests/weights/test_pytorchvideo.py), so these are the numbers to expect.
    "recognition.i3d:rgb_k400": (12.697264, 111.15),
    # Counted here: the networks are ours, or their papers count nothing.
    "recognition.lrcn:resnet18_ucf101": (11.995, 29.22),
    "recognition.lrcn:frozen_c3d_ucf101": (29.809, 10 * 38.497),
    "recognition.recurrent_conv:gru_ucf101": (14.222, 23.72),
    # Counted by hand: the paper states neither.
    "recognition.late_fusion:sports1m": (125.288295, 2.4037),
    "recognition.early_fusion:sports1m": (74.221703, 2.2208),
    "recognition.slow_fusion_3d:sports1m": (75.511751, 4.5186),
}
# Two networks, colours and flow, millions of parameters: by hand, and the I3D paper's 25 with both classifiers.
TWO_STREAMS = {
    "recognition.two_stream:ucf101": 181.335594,
    "recognition.two_stream:ucf101_svm": 181.335594 + (2 * 101 * 101 + 101) / 1e6,
    "recognition.i3d:two_stream_k400": 25.37,
}
# Many layers take seconds to count; what these are larger variants of is counted every time.
SLOW = {
    "recognition.mvit:v1_base_32x3_k400",
    "recognition.mvit:v1_base24_32x3_k400",
    "recognition.mvit:v2_base_k400",
    "recognition.mvit:v2_large_k400",
    "recognition.video_swin:small_k400",
    "recognition.video_swin:large_k400",
    "recognition.video_swin:base_ssv2",
    "recognition.hiera:large_k400",
    "recognition.hiera:huge_k400",
    "recognition.uniformer:base_32x4_k400",
    "recognition.uniformer:base_32_ssv2",
    "recognition.uniformer_v2:l14_8_k400",
    "recognition.uniformer_v2:l14_16_ssv2",
    "recognition.internvideo:huge_k400",
    "recognition.internvideo:huge_ssv2",
}


@pytest.mark.parametrize(
    "address", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CLASSIFIERS]
)
def test_classifiers(address):
    parameters, multiply_adds = CLASSIFIERS[address]
    size = size_of(address)
    assert size.parameters == pytest.approx(parameters, rel=0.01)
    assert size.encoder_multiply_adds == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize("address", one_of_each(CLASSIFIERS))
def test_losses_accept_the_papers_clips(address):
    complexity.try_out(systems.find(address))


@pytest.mark.slow
@pytest.mark.parametrize("address", CLASSIFIERS)
def test_all_losses_accept_the_papers_clips(address):
    complexity.try_out(systems.find(address))


# Giga multiply-adds in the crops that X3D's paper tests with.
X3D_TESTED = {
    "recognition.x3d:s_k400": (182, 2.7),
    "recognition.x3d:m_k400": (256, 6.2),
    "recognition.x3d:l_k400": (356, 24.8),
}


@pytest.mark.parametrize("address", X3D_TESTED)
def test_x3d_in_the_crops_of_its_tests(address):
    size, multiply_adds = X3D_TESTED[address]
    run = systems.find(address)
    clip = dataclasses.replace(run.data.clip, size=size)
    cost = complexity.of_run(dataclasses.replace(run, data=dataclasses.replace(run.data, clip=clip)))
    assert cost.encoder_multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize("address", TWO_STREAMS)
def test_two_streams(address):
    cost = complexity.of_run(systems.find(address))
    assert cost.parameters / 1e6 == pytest.approx(TWO_STREAMS[address], rel=1e-3)


def test_every_preset_is_named():
    elsewhere = (
        "recognition.memvit:",  # the paper counts a clip, a third of a sample: tests/models/test_memvit.py does
        "recognition.s5:",
        "recognition.probe:",  # pretraining.toto's networks
        "recognition.finetuned:",  # the same
    )
    assert not unnamed("recognition", CLASSIFIERS, TWO_STREAMS, elsewhere=elsewhere)
