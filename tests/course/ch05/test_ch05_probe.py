"""The probe of notebook 05: labels of whole images, frozen features, strength from validation."""

from dataclasses import replace

import numpy as np
import pytest

from cxr_helpers.course.ch05 import probe as probes
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.data import vindr

HEART, AORTA = (vindr.CLASSES.index(n) + 1 for n in ("Cardiomegaly", "Aortic enlargement"))


def test_an_image_has_a_label_where_any_box_of_the_class_is(data):
    labels = probes.image_labels(data, data.rows("train"))
    assert labels.shape == (4, 14) and labels[:, HEART - 1].tolist() == [1] * 4
    assert labels[:, AORTA - 1].tolist() == [0, 1, 0, 1] and labels.sum() == 6


def test_a_probe_does_not_see_where_boxes_are_and_leaves_the_network_alone(data, detector):
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    made = probes.train_probe(detector, data, layer="layer3")
    moved = data.fused.assign(x_max=data.fused["x_max"] + 7)
    again = probes.train_probe(detector, replace(data, fused=moved), layer="layer3")
    np.testing.assert_array_equal(made.weights, again.weights)
    assert np.isfinite(made.weights[AORTA - 1]).all()
    assert np.isnan(made.weights[HEART - 1]).all()  # on every image, so nothing can be learned
    assert all((before[name] == value).all() for name, value in detector.state_dict().items())


def test_fewer_images_can_be_asked(data, detector):
    few = probes.train_probe(detector, data, layer="layer2", most=4)
    assert probes._spaced(np.arange(9), 3).tolist() == [0, 4, 8]
    assert probes._spaced(np.arange(3), None).tolist() == [0, 1, 2]
    assert few.weights.shape == (14, 128) and few.center.shape == (128, 8, 8)


def test_a_frozen_detector_has_the_arms_backbone_and_no_training(data):
    settings = load_settings({})
    settings = replace(settings, detect=replace(settings.detect, image_size=64))
    one = probes.frozen_detector(settings, data, "random", seed=3)
    other = probes.frozen_detector(settings, data, "random", seed=3)
    assert not one.training
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert (a == b).all()
    with pytest.raises(ValueError, match="no arm 'moon'"):
        probes.frozen_detector(settings, data, "moon", seed=3)
