"""The recipe gives the same numbers everywhere: what is stored was made with them."""

import torch
from published import recipe_input, recipe_video, recipe_weights, sampled, uniform


def test_numbers_depend_on_names_alone():
    expected = torch.tensor([-1.3986861706, 1.1068586111, 0.3953565359])
    torch.testing.assert_close(uniform("abc", (3,)), expected, rtol=0, atol=1e-6)
    assert torch.equal(uniform("abc", (2, 3)).flatten()[:3], uniform("abc", (3,)))
    many = recipe_input("many", (100_000,))
    assert abs(many.mean()) < 0.01 and abs(many.var() - 1) < 0.01 and many.abs().max() <= 3**0.5
    assert torch.equal(many, uniform("input:many", (100_000,)))


def test_weights_are_scaled_by_their_shapes_and_names():
    names = {"a.weight": (8, 4, 3), "n.weight": (5,), "n.bias": (5,), "n.running_var": (5,), "token": (1, 2, 3)}
    weights = recipe_weights(names)
    torch.testing.assert_close(weights["a.weight"], uniform("a.weight", (8, 4, 3)) / 12**0.5)
    torch.testing.assert_close(weights["n.weight"], 1 + uniform("n.weight", (5,)) / 4)
    torch.testing.assert_close(weights["n.bias"], uniform("n.bias", (5,)) / 4)
    assert (weights["n.running_var"] > 0.5).all()
    torch.testing.assert_close(weights["token"], uniform("token", (1, 2, 3)) / 2)


def test_pixels_and_samples():
    video = recipe_video("video", (50_000,))
    assert video.dtype == torch.uint8 and (video.min(), video.max()) == (0, 255)
    assert abs(video.float().mean() - 127.5) < 1
    kept = sampled(torch.arange(1000.0).view(10, 100))
    assert len(kept) == 256 and (kept[0], kept[-1]) == (0, 999) and torch.equal(sampled(kept), kept)
