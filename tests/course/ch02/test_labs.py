"""The labs of notebook 02, on images of noise: that each run lacks what it should lack."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_pretraining import tiny_data, tiny_settings

from cxr_helpers.course.ch02 import labs


@pytest.fixture(scope="module")
def runs():
    return labs.collapse_lab(tiny_settings("."), tiny_data(), steps=8)


def test_every_run_is_logged_and_measured(runs):
    assert list(runs) == [
        "healthy",
        "no redundancy term",
        "no invariance term",
        "no augmentation",
        "batch of 4",
    ]
    for run in runs.values():
        assert run.log["step"].iloc[-1] == 8 and run.log["step"].is_monotonic_increasing
        assert run.correlation.shape == (16, 16) and 0 <= run.figures["found_again"] <= 1


def test_a_quick_run_takes_a_few_steps_whatever_it_is_asked_for():
    settings, data = replace(tiny_settings("."), scale="quick"), tiny_data()
    told = labs.short_run(
        settings, data.images.pixels, steps=1000, measure=lambda module: ({}, module)
    )
    assert told.log["step"].tolist() == [labs.STEPS_A_ROW]


def test_each_loss_is_what_is_left_of_it(runs):
    logs = {name: run.log for name, run in runs.items()}
    weight = tiny_settings(".").pretrain.redundancy_weight
    whole = logs["healthy"]["invariance"] + weight * logs["healthy"]["redundancy"]
    assert np.allclose(logs["healthy"]["loss"], whole, rtol=1e-3)
    only = logs["no redundancy term"]
    assert np.allclose(only["loss"], only["invariance"], rtol=1e-3)
    only = logs["no invariance term"]
    assert np.allclose(only["loss"], weight * only["redundancy"], rtol=1e-3)


def test_without_augmentation_the_diagonal_is_one_from_the_start(runs):
    assert runs["no augmentation"].log["diagonal_mean"].min() > 0.99
    assert runs["healthy"].log["diagonal_mean"].iloc[0] < 0.9


def test_a_batch_of_four_has_a_high_floor(runs):
    small, healthy = (runs[n].log["offdiagonal_abs_mean"] for n in ("batch of 4", "healthy"))
    assert small.min() > 0.3 and small.min() > healthy.max()


def test_the_nearest_image_and_the_chance_of_the_same_patient():
    features = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [-1.0, -1.0]])
    patients = np.array(["a", "a", "b", "b", "c"])
    found, chance = labs.same_patient_share(features, patients)
    assert found == 1.0 and chance == 0.25  # one of the four other images
    assert labs.nearest(features, 0, np.arange(5), count=2).tolist() == [1, 3]


def test_lists_are_taken_and_what_cannot_be_asked_is_refused():
    features = [[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]
    assert labs.same_patient_share(features, ["a", "a", "b", "b"]) == (1.0, pytest.approx(1 / 3))
    assert labs.nearest(features, 0, [0, 1, 2], count=1).tolist() == [1]
    with pytest.raises(ValueError, match="4 images, but 2 patients"):
        labs.same_patient_share(features, ["a", "b"])
    with pytest.raises(ValueError, match="no patient has two images"):
        labs.same_patient_share(features, list("abcd"))


@pytest.mark.filterwarnings("error")
def test_features_that_are_all_alike_have_no_nearest_and_give_no_nan():
    assert labs.same_patient_share(np.ones((4, 2)), np.array([1, 1, 2, 2]))[1] > 0
    assert len(labs.nearest(np.ones((4, 2)), 0, np.arange(4), count=2)) == 2
