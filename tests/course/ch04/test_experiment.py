"""What notebook 04 runs on: shares of the boxes, detectors by arm, NIH's boxes alone."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_detection import CORNERS, small_settings, vindr_data

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.ch04.data import load_detection
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.settings import SettingsError
from cxr_helpers.data import splits
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
def nih_root(tmp_path):
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    header += "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    lines, boxes = [header], ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for k in range(1, 31):
        name = f"{k:08d}_000.png"
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(root / "images" / name)
        lines.append(f"{name},Mass,0,{k},50,F,PA,64,64,0.1,0.1")
        if k > 10:
            boxes.append(f"{name},{('Mass', 'Infiltrate')[k % 2]},256,128,512,256,,,")
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    (root / "BBox_List_2017.csv").write_text("\n".join(boxes))
    tested = "\n".join(f"{k:08d}_000.png" for k in range(11, 31))
    (root / "test_list.txt").write_text(tested)
    return root


def test_nih_boxes_are_split_by_patient_and_scaled_to_the_packed_pixels(settings, nih_root):
    found = replace(settings, nih=nih_root, vindr=None)
    data = load_detection(found)
    assert data.class_names == ("Infiltration", "Mass") and len(data.images.image_ids) == 20
    assert set(data.split) == {"train", "val", "test"}
    truth = data.truths(np.array([0]))[0]
    assert truth["boxes"].tolist() == [[8, 4, 24, 12]]
    assert data.readings.boxes[CORNERS].iloc[0].tolist() == [16, 8, 48, 24]
    parts = {part: set(data.patients[data.rows(part)]) for part in set(data.split)}
    assert splits.patient_overlap(sorted(parts["train"]), sorted(parts["test"])) == 0
    pretraining = load_nih(found)
    assert not set(data.patients) & set(pretraining.patients[pretraining.rows("train")])


def test_pretraining_on_patients_with_boxes_is_refused(settings, nih_root):
    (nih_root / "test_list.txt").unlink()
    with pytest.raises(SettingsError, match="test_list.txt"):
        load_detection(replace(settings, nih=nih_root, vindr=None))


def test_a_root_without_any_boxes_is_refused(settings, nih_root):
    (nih_root / "BBox_List_2017.csv").unlink()
    with pytest.raises(SettingsError, match="BBox_List_2017.csv"):
        load_detection(replace(settings, nih=nih_root, vindr=None))
