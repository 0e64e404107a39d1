"""The box probe: places and features by hand, a finding found, and nothing where nothing is."""

import numpy as np
import pytest
import torch
from box_cases import truth
from sklearn.linear_model import LogisticRegression
from torch import nn
from torchvision.models import resnet18

from cxr_helpers.detection import box_probe
from cxr_helpers.detection.box_probe import Places
from cxr_helpers.detection.boxes import box_iou

SQUARE = np.full((1, 2), 32)


def places_at(boxes, images=None, labels=None):
    """The boxes, half of them with their finding."""
    n = len(boxes)
    images = np.arange(n) if images is None else np.array(images)
    labels = np.ones(n, int) if labels is None else np.array(labels)
    return Places(images, np.array(boxes, float), labels, np.arange(n) < n // 2)


def sick_images(n=40, seed=0):
    """Each image has a box of one class or of both, somewhere."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        labels = [[1], [2], [3], [1, 2]][i % 4]
        corner = rng.integers(0, 20, (len(labels), 2))
        found.append(truth(np.hstack([corner, corner + rng.integers(4, 12, corner.shape)]), labels))
    return found


# Places


def test_the_counterpart_lacks_the_class_and_no_box_touches_it_where_that_can_be():
    truths = sick_images()
    places = box_probe.draw_places(truths, np.full((40, 2), 32), seed=0)
    n = len(places.images) // 2
    assert places.left_out == 0 and n == sum(len(one["labels"]) for one in truths)
    assert np.array_equal(places.labels[:n], places.labels[n:])
    assert places.present.tolist() == [True] * n + [False] * n
    second = (places.images[n:], places.boxes_xyxy[n:], places.labels[n:])
    for image, box, label in zip(*second, strict=True):
        assert label not in truths[image]["labels"]
        assert not box_iou([box], truths[image]["boxes"]).any()
    assert len(set(places.images[n:].tolist())) > 15  # not the same image again and again


def test_where_every_place_is_taken_an_image_without_the_class_serves():
    truths = [truth([[0, 0, 9, 9]], [1]), truth([[0, 0, 32, 32]], [2])]
    places = box_probe.draw_places(truths, np.full((2, 2), 32), seed=0)
    assert places.images.tolist() == [0, 1, 1, 0]
    assert places.boxes_xyxy[2].tolist() == [0, 0, 9, 9]


def test_the_place_keeps_its_size_and_lies_inside_the_other_image():
    truths = [truth([[0, 12, 4, 20]], [1]), truth([[1, 1, 2, 2]], [2])]
    places = box_probe.draw_places(truths, [[32, 32], [32, 16]], seed=0)
    # The center of 2 of 32 pixels is at 1 of 16, where 4 pixels stick out by one.
    assert places.boxes_xyxy[2].tolist() == [0, 12, 4, 20]
    sides = places.boxes_xyxy[:, 2:] - places.boxes_xyxy[:, :2]
    assert np.array_equal(sides[:2], sides[2:])


def test_boxes_are_clipped_and_those_without_counterpart_are_counted():
    wide, narrow = truth([[4, 4, 40, 12], [40, 40, 50, 50]], [1, 1]), truth([[0, 0, 3, 3]], [2])
    places = box_probe.draw_places([wide, narrow], [[32, 32], [32, 20]], seed=0)
    assert places.left_out == 2 and places.labels.tolist() == [2, 2]
    with pytest.raises(ValueError, match="none of 2 boxes has a counterpart"):
        box_probe.draw_places([wide], [[32, 32]], seed=0)


def test_images_without_a_box_are_no_counterpart():
    truths = [*sick_images(8), *[truth()] * 50]
    places = box_probe.draw_places(truths, np.full((58, 2), 32), seed=0)
    assert places.images.max() < 8


def test_places_repeat_with_their_seed_and_leave_the_truths_alone():
    truths = sick_images()
    before = [{k: v.copy() for k, v in one.items()} for one in truths]
    drawn = [box_probe.draw_places(truths, np.full((40, 2), 32), seed=s) for s in (0, 0, 1)]
    assert np.array_equal(drawn[0].images, drawn[1].images)
    assert not np.array_equal(drawn[0].images, drawn[2].images)
    for one, then in zip(truths, before, strict=True):
        assert all(np.array_equal(one[k], then[k]) for k in one)


@pytest.mark.parametrize("hw", [[[32, 32]], [[32, 32], [0, 32]], [32, 32]])
def test_sizes_that_are_none_are_refused(hw):
    with pytest.raises(ValueError, match="a height and a width above 0 for each"):
        box_probe.draw_places([truth([[0, 0, 9, 9]], [1]), truth([[0, 0, 9, 9]], [2])], hw, seed=0)


def test_size_and_place_alone_cannot_tell_them_apart():
    truths, hw = sick_images(80), np.full((80, 2), 32)
    train, test = (box_probe.draw_places(truths[part], hw[part], seed=0) for part in HALVES)
    features = [box_probe.geometry_features(one, hw) for one in (train, test)]
    found = box_probe.fit_box_probe(features[0], train, features[1], test, labels=[1, 2, 3])
    assert found.validation == pytest.approx([0.5] * 3, abs=0.02)


HALVES = (slice(0, 40), slice(40, 80))


# Features


class Ramp(nn.Module):
    """Stages of strides 4 to 32 that only average, so that features can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        for k, stage in enumerate(box_probe.STAGES):
            setattr(self, stage, nn.AvgPool2d(4 if k == 0 else 2))

    def forward(self, images):
        for stage in box_probe.STAGES:
            images = getattr(self, stage)(images) * self.scale
        return images.flatten(1)


def test_features_of_a_stage_by_hand():
    # Columns grow from 0 to 252; each map holds the mean of its cell.
    pixels = np.tile(np.arange(64, dtype=np.uint8) * 4, (2, 64, 1))
    pixels[1] = 255
    places = places_at([[16, 8, 48, 40], [16, 8, 48, 40]], images=[0, 1])
    found = box_probe.stage_features(Ramp(), pixels, places, mean=0.0, std=1.0)
    assert {k: v.shape for k, v in found.items()} == dict.fromkeys(box_probe.STAGES, (2, 12)) | {
        "all": (2, 48)
    }
    left, right = 4 * (16 + 7.5) / 255, 4 * (32 + 7.5) / 255
    for stage in ("layer1", "layer2", "layer3"):
        assert found[stage][0] == pytest.approx(np.tile([left, right, left, right], 3), abs=1e-5)
        assert found[stage][1] == pytest.approx(1)


def test_each_place_gets_the_features_of_its_own_image_whatever_the_batch():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (7, 64, 64), dtype=np.uint8)
    network = resnet18()
    places = places_at(np.tile([[8, 8, 40, 32]], (6, 1)), images=[6, 0, 2, 2, 5, 0])
    together = box_probe.stage_features(network, pixels, places)
    apart = box_probe.stage_features(network, pixels, places, batch_size=1)
    for stage, values in together.items():
        assert apart[stage] == pytest.approx(values, rel=1e-3, abs=1e-4)
    assert np.array_equal(together["layer1"][1], together["layer1"][5])
    assert not np.allclose(together["layer1"][0], together["layer1"][1])
    assert network.training and not network.layer1._forward_hooks


def test_normalization_is_that_of_the_network():
    pixels = np.full((1, 64, 64), 51, np.uint8)
    places = places_at([[0, 0, 32, 32]] * 2, images=[0, 0])
    found = box_probe.stage_features(Ramp(), pixels, places, mean=(0, 0.1, 0.2), std=(1, 0.5, 1))
    assert found["layer1"][0] == pytest.approx(np.repeat([0.2, 0.2, 0.0], 4), abs=1e-6)


def test_a_network_without_the_stages_and_an_image_that_is_not_here_are_refused():
    places, pixels = places_at([[0, 0, 9, 9]] * 2), np.zeros((1, 32, 32), np.uint8)
    with pytest.raises(ValueError, match="a Flatten has no layer1"):
        box_probe.stage_features(nn.Flatten(), pixels, places)
    with pytest.raises(ValueError, match="lies on image 1, and there are 1 images"):
        box_probe.pixel_features(pixels, places)
    with pytest.raises(ValueError, match="batch_size is 0"):
        box_probe.pixel_features(pixels, places_at([[0, 0, 9, 9]] * 2, [0, 0]), batch_size=0)


def test_pixels_of_a_place_by_hand():
    pixels = np.zeros((2, 16, 16), np.uint8)
    pixels[1, 4:8, 4:8] = 255
    places = places_at([[4, 4, 12, 12]] * 2)
    found = box_probe.pixel_features(torch.from_numpy(pixels), places, cells=2)
    assert found[0] == pytest.approx([0] * 4)
    assert found[1] == pytest.approx([1, 0, 0, 0], abs=0.26)  # interpolated at its border
    assert found[1][0] > 0.7


# Probes


def test_classes_are_chosen_by_their_pairs_in_training_and_validation():
    train = places_at(np.ones((10, 4)), labels=[1, 1, 1, 2, 2] * 2)
    val = places_at(np.ones((6, 4)), labels=[1, 2, 2] * 2)
    ask = box_probe.probed_labels
    assert ask(train, val, least_train=2, least_val=1) == (1, 2)
    assert ask(train, val, least_train=3, least_val=1) == (1,)
    assert ask(train, val, least_train=1, least_val=2) == (2,)
    with pytest.raises(ValueError, match="20 pairs in training and 5 .* the most are 3 and 2"):
        ask(train, val)


def made_up(n=200, width=6, seed=0, told=1.0):
    """Two classes; what is there moves another feature in each."""
    rng = np.random.default_rng(seed)
    places = places_at(np.ones((n, 4)), labels=np.tile(np.arange(n // 2) % 2 + 1, 2))
    features = rng.normal(size=(n, width))
    features[np.arange(n), places.labels - 1] += 2 * told * places.present
    return features * 7 + 3, places


def test_each_class_has_its_own_regression_and_noise_stays_noise():
    found, chance = (
        box_probe.fit_box_probe(*made_up(told=t), *made_up(seed=1, told=t), labels=[1, 2])
        for t in (1, 0)
    )
    features, places = made_up(seed=2)
    values = box_probe.auroc(places, found.scores(features, places), [1, 2])
    assert (values > 0.85).all() and (np.abs(chance.validation - 0.5) < 0.15).all()
    assert np.argmax(np.abs(found.weights), axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("width", [6, 300])
def test_a_probe_is_scikit_learns_on_standardized_features(width):
    features, places = made_up(width=width)
    found = box_probe.fit_box_probe(
        features, places, features, places, labels=[2], strengths=[0.01]
    )
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    asked = places.labels == 2
    reference = LogisticRegression(C=0.01, tol=1e-6, max_iter=1000)
    expected = reference.fit(x[asked], places.present[asked]).decision_function(x[asked])
    assert found.scores(features, places)[asked] == pytest.approx(expected, abs=0.01)
    assert np.isnan(found.scores(features, places)[~asked]).all()


def test_validation_chooses_the_strength():
    (features, places), val = made_up(width=100, told=0.4), made_up(400, 100, seed=1, told=0.4)
    data, labels = (features, places, *val), [1, 2]
    one_by_one = [
        box_probe.fit_box_probe(*data, labels=labels, strengths=[c]).validation.mean()
        for c in box_probe.STRENGTHS
    ]
    found = box_probe.fit_box_probe(*data, labels=labels)
    assert found.strength == box_probe.STRENGTHS[int(np.argmax(one_by_one))]
    assert found.validation.mean() == pytest.approx(max(one_by_one), abs=1e-3)


def test_a_constant_feature_is_no_harm():
    features, places = made_up()
    features[:, 5] = 0.1
    found = box_probe.fit_box_probe(features, places, features, places, labels=[1, 2])
    assert np.isfinite(found.scores(features, places)).all()


def test_what_does_not_fit_is_refused():
    features, places = made_up()
    fit = box_probe.fit_box_probe
    with pytest.raises(ValueError, match=r"shape \(100, 6\); expected \(200, D\)"):
        fit(features[:100], places, features, places, labels=[1])
    with pytest.raises(ValueError, match=r"shape \(200, 5\); expected \(200, 6\)"):
        fit(features, places, features[:, :5], places, labels=[1])
    with pytest.raises(ValueError, match="class 3 has no pair in training"):
        fit(features, places, features, places, labels=[1, 3])
    with pytest.raises(ValueError, match="not finite"):
        fit(np.where(features > 20, np.nan, features), places, features, places, labels=[1])
    with pytest.raises(ValueError, match="for 200 places"):
        box_probe.auroc(places, np.zeros(3), [1])


def test_a_network_sees_what_is_there_and_not_the_place():
    """Disks on noise: features tell the disk, geometry does not."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(90, 110, (60, 64, 64), dtype=np.uint8)
    truths = []
    for i, image in enumerate(pixels):
        x, y = rng.integers(0, 44, 2)
        image[y + 2 : y + 14, x + 2 : x + 14] += np.uint8(60 if i % 2 else 25)
        truths.append(truth([[x, y, x + 16, y + 16]], [i % 2 + 1]))
    hw, parts = np.full((60, 2), 64), (slice(0, 40), slice(40, 60))
    torch.manual_seed(0)
    network, found = resnet18(), []
    for part in parts:
        places = box_probe.draw_places(truths[part], hw[part], seed=0)
        found += [box_probe.stage_features(network, pixels[part], places)["layer1"], places]
    assert box_probe.fit_box_probe(*found, labels=[1, 2]).validation.min() > 0.9
