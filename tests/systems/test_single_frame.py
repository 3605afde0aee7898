import torch

from filmstrip.systems.recognition.single_frame import SingleFrameConfig


def build():
    torch.manual_seed(0)
    return SingleFrameConfig(widths=(8, 16), depths=(1, 1), early_stride=2, num_classes=5).build().eval()


def test_a_clip_has_the_mean_probabilities_of_its_frames():
    objective, video = build(), torch.rand(2, 3, 3, 32, 32)
    frames = torch.stack([objective.classify(video[:, t : t + 1]).softmax(1) for t in range(3)])
    torch.testing.assert_close(objective.classify(video).softmax(1), frames.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(objective.classify(video).exp().sum(1), torch.ones(2))


def test_order_of_frames_does_not_matter():
    objective, video = build(), torch.rand(1, 4, 3, 32, 32)
    torch.testing.assert_close(objective.classify(video.flip(1)), objective.classify(video), rtol=1e-4, atol=1e-5)


def test_loss_is_the_mean_over_frames_for_hard_and_mixed_labels():
    objective, video, label = build(), torch.rand(2, 3, 3, 32, 32), torch.tensor([4, 0])
    each = [objective({"video": video[:, t : t + 1], "label": label}).total for t in range(3)]
    loss = objective({"video": video, "label": label}).total
    torch.testing.assert_close(loss, torch.stack(each).mean(), rtol=1e-4, atol=1e-6)
    mixed = torch.nn.functional.one_hot(label, 5).float()
    torch.testing.assert_close(objective({"video": video, "label": mixed}).total, loss)
