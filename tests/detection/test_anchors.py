"""Anchors: by hand, from boxes, refused where there are none."""

import numpy as np
import pytest
import torch

from cxr_helpers.detection.anchors import Anchors, anchor_coverage, derive_anchors


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (np.zeros((0, 4)), "no boxes; give one at least"),
        (np.zeros((4, 3)), r"shape \(4, 3\)"),
        (np.full((1, 4), np.nan), "not finite"),
        ([[0, 0, 5, 5]] * 5 + [[3.0, 3.0, 3.0, 9.0]], r"\[3.0, 3.0, 3.0, 9.0\] has no area"),
    ],
)
def test_what_is_no_box_with_area_is_refused(boxes, words):
    for ask in (derive_anchors, lambda boxes: anchor_coverage(boxes, Anchors())):
        with pytest.raises(ValueError, match=words):
            ask(boxes)


def test_fewer_boxes_than_anchors_are_refused_and_equal_ones_are_not():
    with pytest.raises(ValueError, match="4 boxes are too few for 5 sizes"):
        derive_anchors([[0, 0, 5, 5]] * 4)
    assert derive_anchors([[0, 0, 5, 5]] * 5).sizes == (5.0,) * 5


def test_coverage_by_hand_of_arrays_and_tensors():
    # A 10 x 10 anchor covers a 10 x 10 box fully, and a 20 x 10 box with IoU 100 / 200.
    boxes = [[0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 30, 10]]
    for kind in (np.array, lambda b: torch.tensor(b, dtype=torch.float32, requires_grad=True)):
        assert anchor_coverage(kind(boxes), Anchors((10,) * 5, (1.0,))) == pytest.approx(2 / 3)


def test_derived_anchors_cover_the_boxes_better_and_grow_with_the_image():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 80, (300, 2))
    boxes = np.hstack([corners, corners + np.exp(rng.normal(2.5, 0.7, (300, 2)))])
    small, large = derive_anchors(boxes), derive_anchors(boxes * 4)
    assert list(small.sizes) == sorted(small.sizes)
    assert anchor_coverage(boxes, small) > 0.9 > anchor_coverage(boxes, Anchors())
    np.testing.assert_allclose(np.array(small.sizes) * 4, large.sizes, atol=0.3)
    assert small.ratios == large.ratios
