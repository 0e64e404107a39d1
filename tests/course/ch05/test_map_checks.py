"""Maps of randomized detectors, of heads with random labels, and under deletion of pixels."""

import numpy as np
import pytest
import torch

from cxr_helpers.course.ch05 import explained, map_checks, random_labels
from cxr_helpers.explanation import sanity
from cxr_helpers.explanation.cells import CellAblation


def test_randomization_starts_at_one_and_moves(data, detector, probe, found_in):
    layers = {explained.CHANNELS: "layer3", explained.CELLS: "layer2"}
    tables = map_checks.randomization_check(
        detector, data, found_in("test"), layer=layers, seed=0, probe=probe
    )
    assert tuple(tables) == explained.WAYS
    for table in tables.values():
        assert table.shape == (3, 1 + len(sanity.DETECTOR_PARTS))
        known = table["as trained"].dropna()
        assert len(known) and (known > 0.999).all() and table["+ stem"].mean() < 0.9
    of_probe = tables[explained.PROBE]  # which has no pyramid and nothing after its layer
    assert of_probe["+ head"].equals(of_probe["+ layer4"])
    assert not of_probe["+ layer4"].equals(of_probe["+ layer3"])
    assert of_probe["+ head"].isna().sum() == 2  # a class on all training images has no probe


def test_cells_that_cannot_count_do_not_make_maps_alike():
    reached = np.float32([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    one, other = (CellAblation(5.0, np.float32(a)) for a in (reached, [[3, 2, 1], [5, 5, 5]]))
    assert map_checks._alike(one, other) == -1
    assert np.isnan(map_checks._alike(CellAblation(5.0, np.full((2, 2), 5, np.float32)), one))


def test_curves_start_at_the_score_and_at_the_blurred_image(data, detector, found_in):
    items, makers = found_in("test"), explained.ways(detector, layer="layer3")
    means, areas = map_checks.pixel_curves(detector, data, items, makers, steps=4, seed=0)
    assert areas.shape == (3, 8) and np.isfinite(areas).all(axis=None)
    channels = makers[explained.CHANNELS]
    scores = [made.score for _, made in explained.maps_of(channels, data, items)]
    for name, (share, score) in means["deletion"].items():
        assert share.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert score[0] == pytest.approx(np.mean(scores), abs=1e-4)
        assert means["insertion"][name][1][-1] == pytest.approx(score[0], abs=1e-4)
        assert means["insertion"][name][1][0] == pytest.approx(score[-1], abs=1e-4)


def test_deletion_begins_with_the_radiograph(detector, found_in, narrow, monkeypatch):
    met, curve = [], sanity.Curve(np.zeros(2), np.zeros(2))
    for name in ("deletion_curve", "insertion_curve"):
        record = lambda score, image, heatmap, **_: met.append(heatmap) or curve  # noqa: E731
        monkeypatch.setattr(sanity, name, record)
    makers = explained.ways(detector, layer="layer3")
    map_checks.pixel_curves(detector, narrow, found_in("test")[:1], makers, seed=0)
    assert len(met) == 8
    assert all(heatmap[:, 48:].max() < heatmap[:, :48].min() for heatmap in met)


def test_background_boxes_overlap_no_finding_much():
    rng = np.random.default_rng(0)
    boxes = np.array([[10, 10, 30, 40], [5, 5, 12, 9.0]])
    for _ in range(20):
        others = random_labels.background_boxes(boxes, 64, rng)
        assert others.shape[1] == 4 and others.min(initial=0) >= 0 and others.max(initial=0) <= 64
        assert len(others) <= 2
    assert random_labels.background_boxes(np.zeros((0, 4)), 64, rng).shape == (0, 4)


def test_new_heads_learn_labels_and_leave_the_rest(data, detector, found_in):
    heads, table = random_labels.random_label_heads(detector, data, steps=60, seed=0)
    assert list(table.index) == ["true labels", "true labels again", "shuffled"]
    assert table.loc["true labels", "accuracy on its training labels"] > 0.8
    old = detector.state_dict()
    for one in heads.values():
        moved = {k for k, v in one.state_dict().items() if not torch.equal(v, old[k])}
        assert moved and all(k.startswith("roi_heads.box") for k in moved)
    ways = {name: explained.ways(one, layer="layer3") for name, one in heads.items()}
    explains = [(name, made[explained.CHANNELS]) for name, made in ways.items()]
    alike = map_checks.agreement(explains, data, found_in("test"))
    assert list(alike) == list(heads) and alike.abs().max(axis=None) <= 1
    assert (alike["true labels"] > 0.999).all()
