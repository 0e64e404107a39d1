"""What notebook 04 runs on: shares of the boxes, detectors by arm, NIH's boxes alone."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_detection import CORNERS, small_settings, vindr_data
from tiny_root import make_nih_root

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.ch04.data import load_detection
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.settings import SettingsError
from cxr_helpers.pretraining import barlow, weights


@pytest.fixture(scope="module")
def data():
    return vindr_data()


@pytest.fixture
def settings(tmp_path):
    return small_settings(tmp_path)


def test_smaller_shares_lie_in_larger_ones_and_hold_abnormal_training_images(settings, data):
    tenth, third, whole = (
        set(experiment.training_rows(settings, data, fraction=f)) for f in (0.1, 0.3, 1.0)
    )
    assert tenth < third < whole
    assert all(data.split[row] == "train" and data.abnormal[row] for row in whole)


def test_a_share_has_a_file_of_its_own_and_resampling_does_not_change_names(settings, data):
    def path(settings=settings, **options):
        return experiment.detector_path(settings, data, "random", seed=0, **options)

    assert path() != path(fraction=0.1)
    assert path() == path(replace(settings, detect=replace(settings.detect, resamples=7)))
    assert path() != path(replace(settings, detect=replace(settings.detect, learning_rate=1.0)))


def with_detect(settings, **changes):
    return replace(settings, detect=replace(settings.detect, **changes))


def recipes(**of_random):
    rates = {"learning_rate": 1e-3, "backbone_rate": 1.0}
    return {"random": rates | of_random, "pretrained": rates}


def test_an_arm_is_trained_by_its_own_recipe_and_one_set_by_hand_holds_for_all(settings):
    own = with_detect(settings, recipes=recipes(learning_rate=4e-3, backbone_rate=0.1))
    slow, free = (experiment.with_recipe(own, arm).detect for arm in ("random", "pretrained"))
    assert (slow.learning_rate, slow.backbone_rate) == (4e-3, 0.1)
    assert (free.learning_rate, free.backbone_rate) == (1e-3, 1.0)
    by_hand = with_detect(own, learning_rate=2e-3, backbone_rate=0.0)
    assert experiment.with_recipe(by_hand, "random") == by_hand
    with pytest.raises(SettingsError, match="has random, pretrained, not evening; add it"):
        experiment.with_recipe(own, "evening")
    with pytest.raises(SettingsError, match="backbone_rate is 0.1.*learning_rate is 0; set both"):
        experiment.with_recipe(with_detect(own, backbone_rate=0.1), "random")


def test_recipes_that_are_no_table_of_rates_are_refused(settings):
    for wrong in (3.0, {"random": {"learning_rate": 1e-3}}, {"random": 1e-3}):
        with pytest.raises(SettingsError, match="learning_rate and backbone_rate by arm"):
            with_detect(settings, recipes=wrong)


def test_the_recipe_of_another_arm_does_not_change_a_file_and_one_s_own_does(settings, data):
    def path(arm, **of_random):
        other = with_detect(settings, recipes=recipes(**of_random))
        return experiment.detector_path(other, data, arm, seed=0)

    assert path("pretrained") == path("pretrained", backbone_rate=0.1)
    assert path("random") != path("random", backbone_rate=0.1)
    by_hand = with_detect(settings, learning_rate=1e-3)
    assert path("random") == experiment.detector_path(by_hand, data, "random", seed=0)


def test_new_evening_weights_make_a_new_detector_and_none_leave_the_pretrained_ones(settings, data):
    assert experiment.arms_here(settings) == ("random", "pretrained")
    without = experiment.detector_path(settings, data, "evening", seed=0)
    shipped = pretraining.evening_path(settings)
    shipped.parent.mkdir()
    shipped.write_bytes(b"one")
    first = experiment.detector_path(settings, data, "evening", seed=0)
    shipped.write_bytes(b"two")
    assert len({without, first, experiment.detector_path(settings, data, "evening", seed=0)}) == 3


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_every_share_is_trained_for_as_many_steps(settings, data, fraction):
    two_epochs = with_detect(settings, epochs=2)
    options = {"seed": 0, "fraction": fraction, "progress": False}
    _, path = experiment.train_or_load_detector(two_epochs, data, "random", **options)
    steps = experiment.training_log(path)["step"]
    images = len(data.rows("train", abnormal_only=True))
    wanted, an_epoch = 2 * (images // settings.detect.batch_size), steps.iloc[0]
    assert wanted > 10 and abs(steps.iloc[-1] - wanted) <= an_epoch / 2


def test_a_frozen_backbone_is_in_the_detector_as_it_came(settings, data):
    frozen = with_detect(settings, learning_rate=1e-2, backbone_rate=0.0)
    options = {"seed": 0, "fraction": 0.3, "progress": False}
    built, _ = experiment.train_or_load_detector(frozen, data, "random", **options)
    state, _ = pretraining.arm_state(frozen, "random", seed=0)
    body = built.backbone.body.state_dict()
    assert all((body[name] == state[name]).all() for name in body)


def test_a_random_arm_keeps_no_stage_and_no_statistics(settings, data):
    paper = replace(settings, detect=replace(settings.detect, batch_norm="frozen", frozen_stages=1))
    built = {arm: experiment.detector_settings(paper, data, arm) for arm in experiment.ARMS[:2]}
    assert (built["random"].batch_norm, built["random"].frozen_stages) == ("train", 0)
    assert (built["pretrained"].batch_norm, built["pretrained"].frozen_stages) == ("frozen", 1)


def test_a_detector_is_trained_once_with_its_boxes_counted(settings, data):
    options = {"seed": 0, "fraction": 0.3, "progress": False}
    built, path = experiment.train_or_load_detector(settings, data, "random", **options)
    counts = experiment.lost_boxes(path)
    assert counts.loc["Cardiomegaly", "seen"] > 0 and (counts["lost"] <= counts["seen"]).all()
    assert np.isfinite(experiment.training_log(path)["loss"]).all()
    again, _ = experiment.train_or_load_detector(settings, data, "random", **options)
    rows = data.rows("test")
    first = experiment.predictions(built, path, data, rows)
    for a, b in zip(first, experiment.predictions(again, path, data, rows), strict=True):
        np.testing.assert_array_equal(a["boxes"], b["boxes"])


def test_a_detector_of_another_backbone_is_not_taken(settings, data):
    backbone = barlow.build_backbone(settings.pretrain.arch, seed=0)
    here = pretraining.backbone_path(settings, seed=0)
    weights.save_weights(backbone.state_dict(), here, settings={"digest": "first"})
    options = {"seed": 0, "fraction": 0.3, "progress": False}
    _, path = experiment.train_or_load_detector(settings, data, "pretrained", **options)
    experiment.train_or_load_detector(settings, data, "pretrained", **options)
    weights.save_weights(backbone.state_dict(), here, settings={"digest": "second"})
    with pytest.raises(ValueError, match="digest first, now second.*move it elsewhere") as e:
        experiment.train_or_load_detector(settings, data, "pretrained", **options)
    assert str(path) in str(e.value) and path.is_file()
    here.unlink()
    assert experiment.train_or_load_detector(settings, data, "pretrained", **options)[1] == path


def test_too_few_images_for_a_batch_are_refused(settings, data):
    large = replace(settings, detect=replace(settings.detect, batch_size=64))
    with pytest.raises(ValueError, match="batch of 64"):
        experiment.train_or_load_detector(large, data, "random", progress=False)


# NIH's boxes alone.
@pytest.fixture
def nih_boxes(tmp_path):
    """Settings for 80 images of 32 pixels, 30 of them with boxes, packed at 16 pixels."""
    root = make_nih_root(tmp_path / "root") / "nih"
    return replace(small_settings(tmp_path, image_size=16), nih=root, vindr=None)


def test_nih_boxes_are_split_by_patient_and_scaled_to_the_packed_pixels(nih_boxes):
    data, pretraining = load_detection(nih_boxes), load_nih(nih_boxes)
    assert data.class_names == ("Cardiomegaly", "Mass") and len(data.images.image_ids) == 30
    assert data.readings.boxes[CORNERS].iloc[0].tolist() == [4, 8, 24, 28]
    assert data.truths([0])[0]["boxes"].tolist() == [[2, 4, 12, 14], [1, 1, 4.5, 4.5]]
    parts = {part: set(data.patients[data.rows(part)]) for part in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 30
    assert not set(data.patients) & set(pretraining.patients[pretraining.rows("train")])


@pytest.mark.parametrize("name", ["test_list.txt", "BBox_List_2017.csv"])
def test_boxes_whose_patients_are_pretrained_on_and_a_root_without_any_are_refused(nih_boxes, name):
    (nih_boxes.nih / name).unlink()
    with pytest.raises(SettingsError, match=name):
        load_detection(nih_boxes)
