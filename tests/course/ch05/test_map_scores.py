"""Scores of maps and baselines: from the radiograph alone, thresholds from validation."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cxr_helpers.course.ch05 import map_scores
from cxr_helpers.course.plots import ch05, style
from cxr_helpers.data import vindr
from cxr_helpers.explanation import heatmaps
from cxr_helpers.explanation.layers import LAYERS

HEART, AORTA = (vindr.CLASSES.index(n) + 1 for n in ("Cardiomegaly", "Aortic enlargement"))
DRAWN = {"resamples": 20, "seed": 0}


@pytest.fixture(scope="module")
def scores(data, detector, found_in):
    return map_scores.score_maps(detector, data, found_in("val"), found_in("test"), layer="layer3")


def test_scores_have_a_row_for_each_finding_and_map(scores, found_in):
    assert len(scores) == 4 * len(found_in("test"))
    assert set(scores["map"]) == {"ablation", "class prior", "centered bell", "detected box"}
    values = scores[list(map_scores.MEASURES)]
    assert values.notna().all(axis=None) and values.min(axis=None) >= 0
    assert values.max(axis=None) <= 1
    assert (scores[map_scores.BEST_IOU] >= scores[map_scores.IOU]).all()
    box = scores[scores["map"] == "detected box"]
    assert (box[map_scores.IOU] > 0.8).all() and (box[map_scores.POINTING] > 0.8).all()


def test_the_prior_knows_training_boxes_only(data):
    priors = map_scores.class_priors(data)
    hearts = [t["boxes"][t["labels"] == HEART] for t in data.truths(data.rows("train"))]
    np.testing.assert_allclose(priors[HEART], heatmaps.box_prior(hearts, (64, 64)))
    assert priors[3].max() == 0 and set(priors) == set(range(1, 15))


def test_the_threshold_comes_from_validation(data, scores, found_in):
    priors, one = map_scores.class_priors(data), scores[scores["map"] == "class prior"]
    level = one["level"].iloc[0]
    ious = [heatmaps.iou_at_levels(priors[f.label], f.readers) for f in found_in("val")]
    assert level == heatmaps.LEVELS[int(np.argmax(np.mean(ious, axis=0)))]
    expected = [heatmaps.iou_at(priors[f.label], f.readers, level=level) for f in found_in("test")]
    np.testing.assert_allclose(one[map_scores.IOU], expected)


def test_scores_look_at_the_radiograph_alone(data, detector, found_in):
    narrow = replace(data, images=replace(data.images, original_hw=np.full((8, 2), (64, 56))))
    asked = {"validation": found_in("val")[:1], "test": found_in("test")[:1], "layer": "layer3"}
    tables = [map_scores.score_maps(detector, d, **asked) for d in (data, narrow)]
    square, cut = (t.set_index("map")[map_scores.ENERGY] for t in tables)
    # The box lies in the picture, and so does all of the bell.
    assert 1 > cut["centered bell"] > square["centered bell"]
    assert cut["class prior"] >= square["class prior"]


@pytest.mark.parametrize("part", ["val", "test"])
def test_nothing_to_score_is_said(data, detector, found_in, part):
    parts = {"val": found_in("val"), "test": found_in("test"), part: []}
    with pytest.raises(ValueError, match="0 findings|, 0 to score"):
        map_scores.score_maps(detector, data, parts["val"], parts["test"], layer="layer3")


def made_up(values, *, label=HEART):
    columns = {measure: values for measure in map_scores.MEASURES}
    at = {"row": range(len(values)), "label": label, "class": vindr.CLASSES[label - 1]}
    return pd.DataFrame({**at, "map": "ablation", **columns})


@pytest.mark.parametrize("change", [0.1, 0.0, 1.0])
def test_a_difference_is_taken_on_the_same_findings_and_has_a_finite_interval(change):
    first, second = made_up([0.2, 0.4, 0.0]), made_up([0.2 + change, 0.4 + change])
    table = map_scores.paired_difference(first, second, **DRAWN)
    assert table["n"].tolist() == [2] * 4
    np.testing.assert_allclose(table[["value", "low", "high"]], change, atol=1e-9)


def test_rare_classes_are_left_out():
    scores = {
        "random": pd.concat([made_up([0.1] * 5), made_up([1.0], label=AORTA)]),
        "pretrained": made_up([0.2] * 4),
    }
    asked = [map_scores.ENERGY, map_scores.IOU]
    table = map_scores.class_table(scores, asked, at_least=4, **DRAWN)
    assert table["class"].tolist() == ["Cardiomegaly"] * 4 and table["n"].tolist() == [5, 4, 5, 4]
    assert table["measure"].tolist() == [asked[0]] * 2 + [asked[1]] * 2
    empty = map_scores.class_table(scores, asked, at_least=9, **DRAWN)
    assert empty.empty and "value" in empty


def test_pointing_is_asked_of_every_layer(data, detector, found_in):
    shares = map_scores.pointing_by_layer(detector, data, found_in("test"))
    assert list(shares.index) == list(LAYERS) and shares.between(0, 1).all()


def test_tables_can_be_drawn(scores):
    table = map_scores.score_table({"pretrained": scores}, reference="pretrained", **DRAWN)
    assert len(table) == 4 * 4
    style.plot_estimates(table, rows="map", groups="map", panels="measure").canvas.draw()
    two = map_scores.MEASURES[:2]
    classes = map_scores.class_table({"pretrained": scores}, two, at_least=1, **DRAWN)
    ch05.plot_class_scores(classes).canvas.draw()
    plt.close("all")
