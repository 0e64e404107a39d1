"""The lab of knobs: what turning one changes, and the sliders, which hand their values on."""

import matplotlib.pyplot as plt
import pytest
from tiny_pretraining import tiny_data, tiny_settings

from cxr_helpers.course.ch02 import knobs


def test_each_knob_reaches_the_run():
    settings, data = tiny_settings("."), tiny_data()
    turned = {"redundancy_weight": 3.0, "min_crop": 0.9, "batch_size": 4, "width": 10, "steps": 8}
    run = knobs.with_knobs(settings, data, turned)
    last = run.log.iloc[-1]
    assert last["step"] == 8 and run.correlation.shape == (10, 10)
    assert last["loss"] == pytest.approx(last["invariance"] + 3 * last["redundancy"], rel=1e-3)
    assert last["offdiagonal_abs_mean"] > 0.3  # the floor of four images
    assert 0 <= run.figures["found_again"] <= 1
    smaller = knobs.with_knobs(settings, data, turned | {"min_crop": 0.1})
    assert smaller.log["loss"].iloc[0] != run.log["loss"].iloc[0]


def test_a_knob_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no knob 'crop'; there are steps, width"):
        knobs.with_knobs(tiny_settings("."), tiny_data(), {"steps": 1, "crop": 0.5})
    with pytest.raises(ValueError, match="no slider for 'crop'; there are"):
        knobs.knob_panel(print, {"crop": 0.5})


def test_the_button_trains_with_the_sliders_as_they_stand():
    trained = []

    def train(values):
        trained.append(values)
        return plt.figure()

    panel = knobs.knob_panel(train, {"redundancy_weight": 0.1, "batch_size": 96, "min_crop": 0.8})
    *sliders, button, _ = panel.children
    assert [slider.description for slider in sliders] == [
        "redundancy_weight",
        "batch_size",
        "min_crop",
    ]
    sliders[1].value = 32
    button.click()
    button.click()
    assert (
        trained
        == [{"redundancy_weight": pytest.approx(0.1), "batch_size": 32, "min_crop": 0.8}] * 2
    )
    assert button.description == "Train" and not button.disabled and not plt.get_fignums()
