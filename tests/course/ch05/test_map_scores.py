"""Scores of maps and baselines: from the radiograph alone, thresholds from validation."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cxr_helpers.course.ch05 import explained, map_scores
from cxr_helpers.course.plots import style
from cxr_helpers.data import vindr
from cxr_helpers.explanation import heatmaps
from cxr_helpers.explanation.layers import LAYERS

HEART, AORTA = (vindr.CLASSES.index(n) + 1 for n in ("Cardiomegaly", "Aortic enlargement"))
DRAWN = {"resamples": 20, "seed": 0}


@pytest.fixture(scope="module")
def scores(data, detector, probe, found_in):
    parts = found_in("val"), found_in("test")
    return map_scores.score_maps(detector, data, *parts, layer="layer3", probe=probe)


def test_scores_have_a_row_for_each_finding_map_and_truth(scores, found_in):
    assert set(scores["map"]) == {*explained.WAYS, *map_scores.BASELINES}
    counts = scores["truth"].value_counts()
    test = found_in("test")
    assert counts["readers"] == 7 * len(test)
    assert counts["exact"] == 7 * (len(test) - 1)  # one lies nowhere, for all that is known
    values = scores[list(map_scores.MEASURES)]
    assert values.notna().all(axis=None) and values.min(axis=None) >= 0
    assert values.max(axis=None) <= 1
    assert (scores[map_scores.BEST_IOU] >= scores[map_scores.IOU]).all()
    assert scores.groupby("map")["level"].nunique().eq(1).all()  # from the readers, for both
    box = scores[(scores["map"] == "detected box") & (scores["truth"] == "readers")]
    assert (box[map_scores.IOU] > 0.8).all() and (box[map_scores.POINTING] > 0.8).all()


def test_fewer_maps_can_be_asked(data, detector, scores, found_in):
    few = map_scores.score_maps(
        detector, data, found_in("val"), found_in("test"), layer="layer3", names=["cell ablation"]
    )
    same = scores[scores["map"] == "cell ablation"].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, same)
    table = map_scores.score_table({"random": few}, reference="random", **DRAWN)
    assert set(table["map"]) == {"random: cell ablation"}


def test_the_prior_knows_training_boxes_only(data):
    priors = map_scores.class_priors(data)
    hearts = [t["boxes"][t["labels"] == HEART] for t in data.truths(data.rows("train"))]
    np.testing.assert_allclose(priors[HEART], heatmaps.box_prior(hearts, (64, 64)))
    assert priors[3].max() == 0 and set(priors) == set(range(1, 15))


def test_the_threshold_comes_from_validation(data, scores, found_in):
    priors, one = map_scores.class_priors(data), scores[scores["map"] == "class prior"]
    one = one[one["truth"] == "readers"]
    level = one["level"].iloc[0]
    ious = [heatmaps.iou_at_levels(priors[f.label], f.readers) for f in found_in("val")]
    assert level == heatmaps.LEVELS[int(np.argmax(np.mean(ious, axis=0)))]
    expected = [heatmaps.iou_at(priors[f.label], f.readers, level=level) for f in found_in("test")]
    np.testing.assert_allclose(one[map_scores.IOU], expected)


def test_scores_look_at_the_radiograph_alone(data, detector, found_in):
    narrow = replace(data, images=replace(data.images, original_hw=np.full((8, 2), (64, 56))))
    asked = {"validation": found_in("val")[:1], "test": found_in("test")[:1], "layer": "layer3"}
    tables = [map_scores.score_maps(detector, d, **asked) for d in (data, narrow)]
    square, cut = (t[t["truth"] == "readers"].set_index("map")[map_scores.ENERGY] for t in tables)
    # The box lies in the picture, and so does all of the bell.
    assert 1 > cut["centered bell"] > square["centered bell"]
    assert cut["class prior"] >= square["class prior"]


@pytest.mark.parametrize("part", ["val", "test"])
def test_nothing_to_score_is_said(data, detector, found_in, part):
    parts = {"val": found_in("val"), "test": found_in("test"), part: []}
    with pytest.raises(ValueError, match="0 findings|, 0 to score"):
        map_scores.score_maps(detector, data, parts["val"], parts["test"], layer="layer3")


def made_up(values, *, label=HEART, name="channel ablation"):
    columns = {measure: values for measure in map_scores.MEASURES}
    at = {"row": range(len(values)), "label": label, "class": vindr.CLASSES[label - 1]}
    return pd.DataFrame({**at, "map": name, "truth": "readers", **columns})


@pytest.mark.parametrize("change", [0.1, 0.0, 1.0])
def test_a_difference_is_taken_on_the_same_findings_and_has_a_finite_interval(change):
    first, second = made_up([0.2, 0.4, 0.0]), made_up([0.2 + change, 0.4 + change])
    table = map_scores.paired_difference(first, second, **DRAWN)
    assert table["n"].tolist() == [2] * 4
    np.testing.assert_allclose(table[["value", "low", "high"]], change, atol=1e-9)


def test_a_map_is_compared_with_baselines_on_the_same_findings():
    maps = {"cell ablation": [1.0, 1, 0, 1], "centered bell": [0, 0, 0, 1], "class prior": [1] * 4}
    table = pd.concat([made_up(values, name=name) for name, values in maps.items()])
    minus = ["centered bell", "class prior"]
    gains = map_scores.over_baselines(table, resamples=200, seed=0, minus=minus).set_index("minus")
    assert gains["value"].to_dict() == {"centered bell": 0.5, "class prior": -0.25}
    assert (gains["n"] == 4).all() and (gains["low"] <= gains["value"]).all()
    assert gains.loc["class prior", "high"] <= 0 <= gains.loc["centered bell", "low"]


def test_pointing_is_asked_of_every_layer_and_way(data, detector, probe, found_in):
    shares = map_scores.pointing_by_layer(detector, data, found_in("test"), probe=probe)
    assert list(shares.index) == list(LAYERS) and tuple(shares) == explained.WAYS
    assert shares[list(explained.WAYS[:2])].stack().between(0, 1).all()
    assert shares[explained.PROBE].notna().tolist() == [layer == "layer3" for layer in LAYERS]
    way, layers = map_scores.reported_map(shares)
    assert shares.loc[layers[way], way] == shares.max(axis=None)
    assert layers[explained.PROBE] == "layer3"


def test_the_answer_says_what_is_not_known_and_what_the_box_alone_reaches():
    maps = {"cell ablation": [1.0] * 9 + [0], "centered bell": [0.0] * 10, "class prior": [0] * 10}
    maps["bell on the box"] = [1.0] * 10
    table = pd.concat([made_up(values, name=name) for name, values in maps.items()])
    asked = {"way": "cell ablation", "layer": "layer2"}
    text = map_scores.answer(table, map_scores.over_baselines(table, **DRAWN), 0.1, **asked)
    assert "more often than the finding's usual place" in text and "90% of 10 findings" in text
    assert "10% of the cells" in text and "C3" in text and "not that the map explains" in text
    worse = table.replace({"map": {"cell ablation": "class prior", "class prior": "cell ablation"}})
    text = map_scores.answer(worse, map_scores.over_baselines(worse, **DRAWN), 0.1, **asked)
    assert "On the finding: not known" in text
    beaten = table.replace(
        {"map": {"bell on the box": "centered bell", "centered bell": "bell on the box"}}
    )
    text = map_scores.answer(beaten, map_scores.over_baselines(beaten, **DRAWN), 0.1, **asked)
    assert "the map knows more than the box" in text


def test_tables_can_be_drawn(scores):
    table = map_scores.score_table({"pretrained": scores}, reference="pretrained", **DRAWN)
    assert len(table) == 4 * 7 and "pretrained: cell ablation" in set(table["map"])
    style.plot_estimates(table, rows="map", groups="map", panels="measure").canvas.draw()
    plt.close("all")
