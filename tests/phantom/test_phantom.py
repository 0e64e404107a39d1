"""The phantom: reproducible, findings leave what their boxes say, bad input is refused."""

from dataclasses import replace

import numpy as np
import pytest

from cxr_helpers import phantom


def make(number=3, image=0, view="PA", lesions=(), site="nih", hw=(128, 128), sex="F", **more):
    """A small radiograph, with its patient's anatomy."""
    patient = phantom.draw_patient(0, number, sex=sex, age=more.pop("age", 55))
    taken = {"site": site, "view": view, "image_hw": hw, "field_cm": (42.0, 42.0)}
    taken["variety"] = more.pop("variety", 1.0)
    acquisition = phantom.draw_acquisition(0, number, image, **taken)
    return phantom.render(patient, acquisition, tuple(lesions), **more)


def lesion(name, severity=0.8, seed=0, number=3, **look):
    """A finding in the patient of `make`."""
    patient = phantom.draw_patient(0, number, sex="F", age=55)
    rng = np.random.default_rng(seed)
    return phantom.draw_lesion(name, patient, rng, severity=severity, **look)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: make(sex="X"), "expected 'M' or 'F'"),
        (lambda: make(age=300), "0 to 120"),
        (lambda: make(site="elsewhere"), "expected one of nih, vindr"),
        (lambda: make(view="LL"), "'PA' or 'AP'"),
        (lambda: make(hw=(0, 128)), "must be positive"),
        (lambda: lesion("Nothing"), "expected one of Aortic"),
        (lambda: lesion("Atelectasis", severity=2), "severity"),
        (lambda: lesion("Atelectasis", size=0), "size is 0"),
        (lambda: lesion("Atelectasis", plain=float("nan")), "plain is nan"),
        (lambda: make(variety=-1), "variety is -1"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("site", phantom.SITES)
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_an_image_is_float32_in_range_and_reproducible(site, view):
    """Same seed, patient and image: the same bytes; another image of the patient differs."""
    first, again = make(site=site, view=view), make(site=site, view=view)
    assert first.pixels.dtype == np.float32
    assert first.pixels.shape == (128, 128) and make(hw=(48, 72)).pixels.shape == (48, 72)
    assert 0 <= first.pixels.min() < 0.4 < first.pixels.max() <= 1
    assert first.pixels.tobytes() == again.pixels.tobytes()
    assert first.pixels.tobytes() != make(site=site, view=view, image=1).pixels.tobytes()


def test_images_of_one_patient_resemble_each_other_more_than_those_of_others():
    """Anatomy persists: the mean correlation within patients is above that between patients."""
    made = [make(number=n, image=k, hw=(64, 64)) for n in range(6) for k in range(2)]
    similar = np.corrcoef([one.pixels[12:52, 12:52].ravel() for one in made])
    same = np.mean([similar[2 * n, 2 * n + 1] for n in range(6)])
    others = np.mean([similar[a, b] for a in range(12) for b in range(a) if a // 2 != b // 2])
    assert same > others + 0.03


@pytest.mark.parametrize("name", phantom.FINDINGS)
def test_each_finding_leaves_a_box_inside_the_image_and_a_trace_in_it(name):
    """The picture changes inside the box of what was drawn."""
    side = 256 if name == "Nodule/Mass" else 128  # a nodule is a few pixels wide
    traces, boxes = [], []
    for seed in range(3):
        drawn = lesion(name, seed=seed)
        made, plain = make(lesions=[drawn], hw=(side, side)), make(hw=(side, side))
        boxes += [b for b in made.boxes if b is not None]
        traces.append(np.abs(made.pixels - plain.pixels).max())
    assert len(boxes) >= 2
    for box in boxes:
        x0, y0, x1, y1 = box.xyxy
        assert 0 <= x0 < x1 <= side and 0 <= y0 < y1 <= side
        assert box.name == name and box.contrast > 0
    assert max(traces) > 0.03


def test_an_obvious_consolidation_stands_out_more_than_a_faint_one():
    """Severity is contrast."""
    change = {}
    for severity in (0.0, 1.0):
        drawn = lesion("Consolidation", severity=severity)
        change[severity] = np.abs(make(lesions=[drawn]).pixels - make().pixels).sum()
    assert change[1.0] > 1.5 * change[0.0] > 0


def test_a_larger_and_a_plainer_finding_is_both():
    """Size shows in the box, plainness in the change of the picture."""
    look = [{}, {"size": 1.5}, {"plain": 3.0}]
    drawn = [make(lesions=[lesion("Consolidation", severity=0.3, **one)]) for one in look]
    (x0, y0, x1, y1), (a0, b0, a1, b1), _ = (one.boxes[0].xyxy for one in drawn)
    assert (a1 - a0) * (b1 - b0) > 1.5 * (x1 - x0) * (y1 - y0)
    assert drawn[2].boxes[0].contrast > 1.2 * drawn[0].boxes[0].contrast  # a lung can fill up


def test_less_variety_brings_the_gray_of_lungs_together():
    """Over patients, the spread of the images' means falls."""
    spread = [
        np.std([make(number=n, hw=(64, 64), variety=v).pixels.mean() for n in range(12)])
        for v in (0.3, 1.0)
    ]
    assert spread[0] < 0.8 * spread[1]


def test_fluid_thins_out_upward():
    """A large effusion of an upright patient has no sharp level."""
    one = lesion("Pleural effusion", severity=0.9)
    one = replace(one, width=9.0, height=9.0)
    made, without = make(lesions=[one]), make()
    change = made.pixels - without.pixels
    x0, y0, x1, y1 = map(int, made.boxes[0].xyxy)
    rows = np.clip(change[y0:y1, x0:x1], 0, None).mean(axis=1)
    assert (np.diff(rows[:4]) > 0).all() and rows[0] < 0.3 * rows.max()


def test_cardiomegaly_widens_the_heart():
    """The box grows with severity and is wide in relation to the thorax."""
    widths = []
    for severity in (0.0, 1.0):
        box = make(lesions=[lesion("Cardiomegaly", severity=severity)]).boxes[0]
        widths.append(box.xyxy[2] - box.xyxy[0])
    assert 0.25 * 128 < widths[0] < widths[1] < 0.7 * 128


def test_lungs_are_darker_than_the_mediastinum():
    """Bright is dense."""
    made = make(keep_maps=True)
    lung, soft = made.maps["lung"], made.maps["soft tissue"]
    assert made.pixels[lung > 8].mean() < made.pixels[(lung < 0.5) & (soft > 15)].mean() - 0.1
    assert all(np.isfinite(m).all() and m.shape == (128, 128) for m in made.maps.values())
    assert soft.min() >= -0.01 and lung.min() >= 0


def test_many_patients_of_all_ages_give_finite_images():
    """No combination of traits leads to NaN or to an empty picture."""
    for number in range(12):
        made = make(number=number, age=number * 9.0, view="AP" if number % 2 else "PA", hw=(64, 64))
        assert np.isfinite(made.pixels).all()
        assert made.pixels.std() > 0.05
