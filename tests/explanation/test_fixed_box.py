"""A fixed box, step by step: the detector's own score, as log-odds that do not saturate."""

import numpy as np
import pytest
import torch
from tiny_detector import gray_image, tiny_detector

from cxr_helpers.explanation import fixed_box
from cxr_helpers.explanation.inputs import ExplanationError

BOX = [8.0, 8, 40, 44]


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


def test_the_score_is_the_log_odds_of_the_detectors_own(detector):
    image = gray_image()
    with torch.no_grad():
        images, _ = detector.transform([image])
        features = detector.backbone(images.tensors)
        pooled = detector.roi_heads.box_roi_pool(
            features, [torch.tensor([BOX])], images.image_sizes
        )
        logits, _ = detector.roi_heads.box_predictor(detector.roi_heads.box_head(pooled))
    expected = float(logits.softmax(1)[0, 2])
    several = torch.stack([image, gray_image(seed=5)])
    odds = fixed_box.score_box(detector, several, BOX, 2)
    assert odds.shape == (2,) and fixed_box.probability(odds[0]) == pytest.approx(expected)
    assert odds[1] == pytest.approx(fixed_box.score_box(detector, several[1:], BOX, 2)[0], abs=1e-6)


def test_log_odds_stay_finite_and_apart_where_probabilities_are_one(detector):
    head = detector.roi_heads.box_predictor.cls_score
    bias = head.bias.detach().clone()
    hidden, odds = torch.zeros(1, 32), []
    try:
        for sure in (0.0, 40.0, 80.0):
            with torch.no_grad():
                head.bias.copy_(bias)
                head.bias[1] += sure
                odds.append(fixed_box.log_odds(detector, hidden, 1))
    finally:
        with torch.no_grad():
            head.bias.copy_(bias)
    steps = torch.cat(odds).diff()
    assert steps.tolist() == pytest.approx([40, 40], abs=1e-3)
    assert fixed_box.probability(np.array([-1e4, 0, 1e4])).tolist() == pytest.approx([0, 0.5, 1])


def test_images_to_score_must_be_a_batch(detector):
    image = gray_image()
    for other in (image, image[:, None, None], image[None, :2], image[None][:0]):
        with pytest.raises(ExplanationError, match=r"\(B, 3, H, W\)"):
            fixed_box.score_box(detector, other, BOX, 1)
    with pytest.raises(ExplanationError, match=r"\[0, 1\]"):
        fixed_box.score_box(detector, torch.stack([image, image * 255]), BOX, 1)


@pytest.mark.parametrize("box", [[3.5, 10, 20, 31], [-5, -3, 30, 20], [50, 1, 70, 9]])
def test_shifted_pooling_reads_no_further_than_what_is_touched(detector, box):
    scene, _ = fixed_box.enter(detector, gray_image(), [box], [1], "layer2")
    (level,), (roi,) = scene.levels, scene.rois
    padded = fixed_box.spread(scene.stages[1], scene.stages, 1, level)
    rows, columns = fixed_box.touched(detector, padded.shape, roi, level)
    elsewhere = torch.full_like(padded, 1e6)
    elsewhere[:, rows, columns] = padded[:, rows, columns]
    asked = [fixed_box.pool_shifted(detector, one, roi, level) for one in (padded, elsewhere)]
    torch.testing.assert_close(*asked)
