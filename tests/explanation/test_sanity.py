"""Sanity checks of heatmaps: what they change, what they leave, and curves worked out by hand."""

import numpy as np
import pytest
import torch
import torchvision
from tiny_detector import tiny_detector
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from cxr_helpers.explanation import sanity
from cxr_helpers.explanation.inputs import ExplanationError

IMAGE = np.linspace(0, 1, 64).reshape(8, 8)


def mean_of_left(images):
    """A score that rests on the left half alone."""
    return images[:, :, :4].mean(axis=(1, 2))


# Weights.
def test_only_the_named_parts_change_and_the_seed_decides():
    detector = tiny_detector()
    names = [*sanity.DETECTOR_PARTS["head"], *sanity.DETECTOR_PARTS["layer4"]]
    changed = sanity.randomized_copy(detector, names, seed=1)
    old = detector.state_dict()
    moved = {k for k, v in changed.state_dict().items() if not torch.equal(v, old[k])}
    assert moved and all(k.startswith(("roi_heads", "backbone.body.layer4")) for k in moved)
    again = sanity.randomized_copy(detector, names, seed=1)
    assert all(map(torch.equal, changed.state_dict().values(), again.state_dict().values()))


def test_the_global_seed_is_left_alone(monkeypatch):
    model = nn.Sequential(nn.Linear(1, 1))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    sanity.randomized_copy(model, ["0"], seed=5)
    assert torch.equal(torch.rand(1), expected) and seeded == []


def test_norms_are_set_back_and_frozen_ones_pass_their_input_on():
    norm = nn.Sequential(nn.BatchNorm2d(2))
    norm(torch.rand(4, 2, 3, 3))
    changed = sanity.randomized_copy(norm, "0", seed=0)  # one name is enough
    assert changed[0].running_mean.tolist() == [0, 0] != norm[0].running_mean.tolist()
    norm = nn.Sequential(torchvision.ops.FrozenBatchNorm2d(2, eps=0.0))
    norm[0].weight += 1
    changed, x = sanity.randomized_copy(norm, ["0"], seed=0), torch.rand(1, 2, 3, 3)
    assert torch.equal(changed(x), x) and torch.equal(norm(x), 2 * x)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen norms", "batch norm"])
def test_no_tensor_below_the_names_stays_as_learned(frozen):
    norm = {} if frozen else {"norm_layer": nn.BatchNorm2d}
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, **norm)
    detector = FasterRCNN(backbone, 3)
    with torch.no_grad():
        for tensor in detector.state_dict().values():
            tensor += 1
    names = [name for part in sanity.DETECTOR_PARTS.values() for name in part]
    changed, old = (
        sanity.randomized_copy(detector, names, seed=0).state_dict(),
        detector.state_dict(),
    )
    same = {key for key in old if torch.equal(changed[key], old[key])}
    assert same and all(key.startswith("rpn.") for key in same)


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(1))


@pytest.mark.parametrize(
    ("part", "name", "words"),
    [
        (Holder(), "block", "'block.1', a Holder, has no reset_parameters"),
        (nn.MultiheadAttention(4, 2), "block", "'block.1', a MultiheadAttention, has no reset"),
        (nn.ReLU(), "layer4", "no part 'layer4'; at the top it has: block"),
    ],
)
def test_parts_that_are_not_there_or_cannot_be_drawn_anew_are_refused(part, name, words):
    model = nn.ModuleDict({"block": nn.Sequential(nn.Linear(4, 4), part)})
    with pytest.raises(ExplanationError, match=words):
        sanity.randomized_copy(model, [name], seed=0)


def test_the_cascade_adds_part_after_part_and_covers_the_detector():
    detector = tiny_detector()
    old, moved = detector.state_dict(), []
    for name, changed in sanity.cascade(detector, sanity.DETECTOR_PARTS, seed=0):
        now = changed.state_dict()
        moved.append({k for k in now if not torch.equal(now[k], old[k])})
        prefixes = sanity.DETECTOR_PARTS[name]
        assert any(k.startswith(prefixes) for k in moved[-1])
    assert all(a < b for a, b in zip(moved, moved[1:], strict=False))
    kept = {k for k in old if k.endswith("weight")} - moved[-1]
    assert all(k.startswith("rpn.") or "bn" in k or "downsample.1" in k for k in kept)


# Labels and ranks.
def test_shuffled_labels_are_the_same_ones_in_another_order():
    labels = np.arange(20)
    shuffled = sanity.shuffle_labels(labels, seed=0)
    assert sorted(shuffled) == labels.tolist() and (shuffled != labels).sum() > 10
    assert labels.tolist() == list(range(20))
    assert np.array_equal(sanity.shuffle_labels(torch.arange(20), seed=0), shuffled)
    assert sanity.shuffle_labels(np.zeros((0, 3)), seed=0).shape == (0, 3)
    with pytest.raises(ExplanationError, match="no rows"):
        sanity.shuffle_labels(3, seed=0)


def test_rank_correlation_ignores_scale_and_knows_constants():
    values = np.random.default_rng(0).random((4, 4))
    assert sanity.rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert sanity.rank_correlation(values, -values) == pytest.approx(-1)
    assert sanity.rank_correlation(values, np.full((4, 4), 0.1)) == 0.0
    with pytest.raises(ExplanationError, match=r"shapes \(4, 4\) and \(2, 3\)"):
        sanity.rank_correlation(values, np.zeros((2, 3)))


# Curves.
@pytest.mark.parametrize("curve", [sanity.deletion_curve, sanity.insertion_curve])
def test_curves_start_and_end_at_the_two_images(curve):
    first = curve(mean_of_left, IMAGE, IMAGE, steps=3)
    second = curve(mean_of_left, IMAGE, -IMAGE, steps=3)
    assert first.share.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert first.score[[0, -1]] == pytest.approx(second.score[[0, -1]])
    start = first.score[0 if curve is sanity.deletion_curve else -1]
    assert start == pytest.approx(mean_of_left(IMAGE[None])[0])


def test_the_right_map_deletes_early_and_inserts_early():
    image = np.zeros((8, 8))
    image[2:6, 1:3] = 1.0
    right = image.copy()
    wrong = np.zeros((8, 8))
    wrong[:, 4:] = 1
    for name, sign in (("deletion_curve", 1), ("insertion_curve", -1)):
        curve = getattr(sanity, name)
        good, bad = (curve(mean_of_left, image, m, blur=3).area for m in (right, wrong))
        assert sign * (bad - good) > 0.02


def test_a_constant_map_takes_pixels_at_random_by_the_seed():
    flat = np.ones((8, 8))
    one, same, other = (
        sanity.deletion_curve(mean_of_left, IMAGE, flat, seed=s).score for s in (0, 0, 1)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heatmap": np.ones((4, 4))}, "one .H, W., so resize a map smaller than its image"),
        ({"image": np.zeros((0, 8)), "heatmap": np.zeros((0, 8))}, "one .H, W."),
        ({"image": IMAGE.astype(np.int64)}, "image is int64; give uint8"),
        ({"image": (IMAGE * 255).astype(np.uint16)}, "uint16 up to 255, so it holds 8 bits only"),
        ({"image": IMAGE * 255}, r"from 0 to 255; expected \[0, 1\]"),
        ({"heatmap": np.full((8, 8), np.nan)}, "not finite"),
        ({"heatmap": [["a"] * 8] * 8}, "heatmap holds no plain numbers"),
        ({"steps": 2.5}, "steps 2.5"),
        ({"steps": 0}, "steps 0"),
        ({"blur": np.nan}, "blur nan"),
        ({"blur": 0.0}, "blur 0"),
        ({"score": lambda images: images}, "score gave shape"),
        ({"score": lambda images: mean_of_left(images) * np.nan}, "score gave .nan"),
    ],
)
def test_odd_input_is_refused(change, words):
    asked = {"score": mean_of_left, "image": IMAGE, "heatmap": IMAGE, **change}
    for curve in (sanity.deletion_curve, sanity.insertion_curve):
        with pytest.raises(ExplanationError, match=words):
            curve(**asked)


def test_scores_may_be_tensors_and_steps_any_whole_number():
    def score(images):
        return torch.from_numpy(mean_of_left(images)).requires_grad_()

    heatmap = torch.from_numpy(IMAGE).requires_grad_()
    one = sanity.deletion_curve(score, IMAGE, heatmap, steps=np.int64(3))
    expected = sanity.deletion_curve(mean_of_left, IMAGE, IMAGE, steps=3)
    assert one.score == pytest.approx(expected.score, abs=1e-6)
