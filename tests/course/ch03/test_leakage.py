"""The leakage lab: each trap on made-up data that falls for it, and on data that does not."""

from dataclasses import replace

import numpy as np
import pytest
from course_data import person_features

from cxr_helpers.course.ch03 import leakage
from cxr_helpers.course.ch03.end_to_end import EndToEnd
from cxr_helpers.data import splits
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.checks import EvaluationError
from cxr_helpers.evaluation.intervals import Interval


@pytest.fixture
def lab(settings, data):
    """Features that know the person and nothing of the labels."""
    return leakage.Lab(settings, data, person_features(data, informative=0).values, [0, 1])


@pytest.fixture
def informed(lab):
    """Features that know the labels too."""
    return replace(lab, values=person_features(lab.data, informative=1).values)


def with_patients(lab, patients):
    """The same images of other patients."""
    entries = lab.data.entries.assign(patient_id=patients)
    return replace(lab, data=replace(lab.data, entries=entries))


def test_only_the_split_by_image_leaks(lab):
    trap, overlap = leakage.leak(lab, repeats=2)
    assert overlap["by patient"] == 0 and overlap["by image"] > 0.9
    assert 0.4 < trap.right < 0.6 and trap.wrong > 0.9
    assert trap.flatters.low > 0.2
    assert trap.flatters.value == pytest.approx(trap.wrong - trap.right)


def test_nothing_leaks_where_each_patient_has_one_image(lab):
    trap, overlap = leakage.leak(with_patients(lab, np.arange(360)), repeats=1)
    assert overlap == {"by patient": 0, "by image": 0}
    assert trap.flatters.low == trap.flatters.high == 0


def test_fewer_patients_than_folds_are_refused(lab):
    with pytest.raises(splits.SplitError, match="3 patients cannot fill 5 parts; give more"):
        leakage.leak(with_patients(lab, np.arange(360) % 3))


def test_every_image_is_scored_by_folds_that_do_not_hold_it(lab):
    unique = replace(lab, values=np.random.default_rng(0).normal(size=(360, 16)))
    scores, shared = leakage.out_of_fold(unique, np.arange(360), by_patient=True, seed=0)
    assert np.isfinite(scores).all() and shared == 0
    found = scoring.auroc(lab.labels, scores)
    assert (found > 0.3).all() and (found < 0.7).all()  # noise tells nothing, its own label would


def test_of_large_data_whole_patients_are_drawn(lab):
    patients = lab.data.patients
    rows = leakage._some_patients(patients, 100, seed=0)
    assert 90 <= len(rows) <= 100
    assert splits.patient_overlap(patients[rows], np.delete(patients, rows)) == 0
    assert len(leakage._some_patients(patients, 360, seed=0)) == 360
    trap, overlap = leakage.leak(lab, repeats=1, max_images=150)
    assert overlap["by patient"] == 0 and trap.flatters.value > 0.1


def test_overlap_of_a_split_by_image():
    assert leakage.image_overlap(np.arange(100), test_share=0.2, seed=0) == 0
    assert leakage.image_overlap(np.arange(100) % 2, test_share=0.2, seed=0) == 1


def test_overlap_of_the_official_test_list(settings, data, tmp_path):
    settings, ids = replace(settings, nih=tmp_path), data.entries["image_id"]
    assert leakage.official_overlap(settings, data.entries) is None

    def listed(names):
        (tmp_path / "test_list.txt").write_text("\n".join(names) + "\n")
        return leakage.official_overlap(settings, data.entries)

    n, overlap = listed(ids.iloc[:300])  # 100 patients with three images each
    assert n == 300 and overlap > 0.8
    assert listed(ids[::3]) == (120, 0.0)
    with pytest.raises(ValueError, match="someone_else.png.*'00000000_000.png'"):
        listed(["someone_else.png"])


@pytest.mark.parametrize("share", [0, -0.1, 1.5, np.nan])
def test_a_share_of_copies_that_is_none_is_refused(lab, share):
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        leakage.duplicates(lab, share=share)


def test_the_table_says_how_to_notice_each_trap():
    trap = leakage.Trap(leakage.LEAK, 0.7, 0.65, Interval(0.05, 0.01, 0.09))
    table = leakage.traps_table([trap], {leakage.LEAK: "look"})
    assert table.loc[leakage.LEAK].tolist() == [0.7, 0.65, "+0.050 (+0.010 to +0.090)", "look"]
    with pytest.raises(KeyError):
        leakage.traps_table([trap], {})


def test_duplicates_flatter_features_that_remember_images(lab):
    memory = np.random.default_rng(2).normal(size=(360, 400)).astype(np.float32)
    lab = replace(lab, values=memory)  # nothing but the image itself
    every, few = (leakage.duplicates(lab, share=share, repeats=2) for share in (1.0, 0.1))
    assert every.flatters.low > 0.2
    assert few.flatters.value < every.flatters.value


def test_no_finding_moves_the_mean_by_its_distance_from_it(informed):
    trap, data, known = leakage.no_finding(informed), informed.data, informed.values
    labels = np.c_[informed.labels, ~data.labels.any(axis=1)]
    train, val, test = (data.rows(part) for part in ("train", "val", "test"))
    fitted = probe.fit_probe(known[train], labels[train], known[val], labels[val])
    per_class = scoring.auroc(labels[test], fitted.scores(known[test]))
    assert trap.wrong == pytest.approx(per_class.mean())
    assert trap.flatters.value == pytest.approx(per_class.mean() - per_class[:2].mean())


def test_the_best_of_many_checks_flatters_even_where_nothing_is_learned(lab):
    labels = lab.labels[lab.data.rows("test")]
    noise = np.random.default_rng(0).normal(size=(20, *labels.shape))
    trap = leakage.best_epoch(lab, [EndToEnd(None, noise, 4)])
    macro = [scoring.auroc(labels, check).mean() for check in noise]
    assert trap.wrong == pytest.approx(max(macro)) and trap.right == pytest.approx(macro[4])
    assert trap.flatters.low >= 0 and trap.flatters.value > 0
    once = leakage.best_epoch(lab, [EndToEnd(None, noise[:1], 0)])
    assert once.flatters == Interval(0, 0, 0)


def test_few_patients_are_few_and_many_are_many(informed):
    trap, table = leakage.few_patients(informed, n_images=30, repeats=4)
    assert table.index.tolist() == ["few patients", "many patients"]
    assert table["patients"].tolist() == [10, 30]
    assert trap.flatters.low < trap.flatters.high
    assert trap.wrong == pytest.approx(table.loc["few patients", "mean macro AUROC"])
    with pytest.raises(EvaluationError, match="84 patients; ask for fewer images"):
        leakage.few_patients(informed, n_images=100, repeats=1)
    with pytest.raises(EvaluationError, match="needs follow-up images"):
        leakage.few_patients(with_patients(informed, np.arange(360)), n_images=9, repeats=1)


def test_few_patients_are_others_in_each_draw(data):
    drawn = {tuple(leakage._images_of(data, 6, few=True, seed=s)) for s in range(5)}
    assert len(drawn) == 5
    for rows in drawn:
        assert len(set(rows)) == 6 and set(rows) <= set(data.rows("train"))


def test_a_trap_with_several_draws_is_as_unsure_as_they_differ(lab):
    test, rng = lab.data.rows("test"), np.random.default_rng(0)
    labels = lab.labels[test]

    def scores(spread):  # draws of which each is a different mixture of labels and noise
        return [labels * s + rng.normal(size=labels.shape) for s in spread]

    right = scores([0.5] * 4)
    alike = lab.compare("alike", test, wrong=[right[0] + labels] * 4, right=[right[0]] * 4)
    apart = lab.compare("apart", test, wrong=scores([0, 0.5, 2, 4]), right=right)
    width = [t.flatters.high - t.flatters.low for t in (alike, apart)]
    assert width[1] > 1.5 * width[0]
