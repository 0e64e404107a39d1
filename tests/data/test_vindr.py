"""vindr.py: both distributions by hand, every row accounted for, then the real table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.data import vindr

KAGGLE = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
PHYSIONET = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
PHYSIONET_TEST = "image_id,class_name,x_min,y_min,x_max,y_max"
LABELS = "image_id,rad_ID,Edema,Other diseases,No finding"


def table(folder: Path, *lines: str, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def read(folder: Path, *lines: str, image_hw=None, **options) -> vindr.Readings:
    found = vindr.read_readings(table(folder, *lines), **options)
    return found if image_hw is None else vindr.clip_boxes(found, image_hw)


def test_no_boxes_at_all(tmp_path):
    found = read(tmp_path, KAGGLE, "a,No finding,14,R1,,,,")
    assert len(found.boxes) == 0 and found.readings.values.tolist() == [["a", "R1", True]]
    assert found.boxes["x_min"].dtype == np.float64
    columns = "image_id reader_id label x_min y_min x_max y_max".split()
    assert list(found.boxes) == columns


def test_kaggle(tmp_path):
    found = read(
        tmp_path,
        KAGGLE,
        "a,Cardiomegaly,3,R9,691.0,1375.0,1653.0,1831.0",
        "a,No finding,14,R1,nan,,NaN,",
        "a,ILD,5,R9,1,2,3,4",
    )
    assert found.boxes.values.tolist() == [
        ["a", "R9", "Cardiomegaly", 691, 1375, 1653, 1831],
        ["a", "R9", "ILD", 1, 2, 3, 4],
    ]
    assert found.readings.values.tolist() == [["a", "R9", False], ["a", "R1", True]]
    assert found.readings["normal"].dtype == bool and len(found.dropped) == 0


def test_case_does_not_matter(tmp_path):
    found = read(tmp_path, KAGGLE.upper(), "a,lung opacity,7,R9,1,2,3,4", "b,No Finding,14,R9,,,,")
    assert found.boxes["label"].tolist() == ["Lung Opacity"]
    assert found.readings["normal"].tolist() == [False, True]


def test_physionet_folds_the_rare_classes_or_keeps_them(tmp_path):
    rows = [PHYSIONET, "a,R9,Rib fracture,1,2,3,4", "a,R9,Lung opacity,1,2,3,4"]
    assert read(tmp_path, *rows).boxes["label"].tolist() == ["Other lesion", "Lung Opacity"]
    kept = read(tmp_path, *rows, rare="keep")
    assert kept.boxes["label"].tolist() == ["Rib fracture", "Lung Opacity"]


def test_physionet_test_is_a_consensus(tmp_path):
    found = read(tmp_path, PHYSIONET_TEST, "a,ILD,1,2,3,4", "b,No finding,,,,")
    assert found.boxes["reader_id"].tolist() == ["consensus"]
    assert found.readings["normal"].tolist() == [False, True]


def test_image_labels_add_the_readings_without_a_box(tmp_path):
    labels = table(tmp_path, LABELS, "a,R9,0,0,0", "a,R8,0,1,0", "b,R8,0,0,1", name="labels.csv")
    found = read(tmp_path, PHYSIONET, "a,R9,ILD,1,2,3,4", image_labels=labels)
    assert found.readings.values.tolist() == [
        ["a", "R9", False],
        ["a", "R8", False],
        ["b", "R8", True],
    ]


def test_image_labels(tmp_path):
    path = table(tmp_path, "image_id,Other disease,Lung tumor,No finding", "a,1,,0")
    labels = vindr.read_image_labels(path)
    assert labels.iloc[0].to_dict() == {
        "image_id": "a",
        "reader_id": "consensus",
        "Other diseases": 1,
        "Lung tumor": 0,
        "No finding": 0,
    }


def test_every_dropped_row_is_named(tmp_path):
    found = read(
        tmp_path,
        KAGGLE,
        "a,ILD,5,R9,1,2,3,4",
        "a,ILD,5,R9,1,2,3,4",
        "a,ILD,5,R9,3,2,1,4",
        "a,ILD,5,R9,1,2,3,2",
        "a,ILD,5,R9,-1,2,3,4",
        "a,ILD,5,R9,1,2,,4",
        "a,ILD,5,R9,1,2,inf,4",
        "a,No finding,14,R9,,,,",
        "a,No finding,14,R8,1,2,3,4",
        ",ILD,5,R9,1,2,3,4",
        "a,ILD,5,,1,2,3,4",
        "a,ILD,5,R8,50,60,70,80",
        image_hw={"a": (40, 30)},
    )
    assert found.dropped.values.tolist() == [
        [3, "a", "the same as a row above"],
        [4, "a", "x_max is not above x_min"],
        [5, "a", "y_max is not above y_min"],
        [6, "a", "a corner below zero"],
        [7, "a", "a finding without a whole box"],
        [8, "a", "a finding without a whole box"],
        [9, "a", "'No finding' by a reader who drew a box"],
        [10, "a", "a box without a finding"],
        [11, "", "no image_id"],
        [12, "a", "no reader"],
        [13, "a", "a box outside the image"],
    ]
    assert len(found.boxes) + len(found.dropped) == 12
    # R8 drew a box that could not be used: a reading, but no normal one.
    assert found.readings.values.tolist() == [["a", "R9", False], ["a", "R8", False]]


def test_boxes_are_clipped_to_the_images_whose_size_is_known(tmp_path):
    found = read(tmp_path, KAGGLE, "a,ILD,5,R9,10,20,300,400", "b,ILD,5,R9,10,20,300,400")
    for hw in ({"a": np.array([50, 60]), "z": (1, 1)}, pd.Series({"a": (50, 60)})):
        clipped = vindr.clip_boxes(found, hw).boxes
        assert clipped.iloc[:, 3:].values.tolist() == [[10, 20, 60, 50], [10, 20, 300, 400]]
    assert found.boxes["x_max"].tolist() == [300, 300]  # not changed
    assert len(vindr.clip_boxes(found, {}).boxes) == 2
    for size in ((0, 60), (np.nan, 60), (np.inf, 60), 60, (50, 60, 1), (-1, 60)):
        with pytest.raises(ValueError, match="image_hw of 'a' is .*not a height and a width"):
            vindr.clip_boxes(found, {"a": size})
    for name in ("a.dicom", "train/a", "A"):
        with pytest.raises(ValueError, match=f"images such as '{name}', the table such as 'a'"):
            vindr.clip_boxes(found, {name: (50, 60)})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.dicom,R9,0,1,0", "names images such as 'a.dicom', the table such as 'a'"),
        ("a,9,0,1,0", "names readers such as '9', the table such as 'R9'"),
    ],
)
def test_image_labels_of_other_images_or_readers_are_refused(tmp_path, row, message):
    labels = table(tmp_path, LABELS, row, name="labels.csv")
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PHYSIONET, "a,R9,ILD,1,2,3,4", image_labels=str(labels))


def test_find_images(tmp_path):
    for name in ("train/b.dicom", "train/a.dcm", "train/c.DICOM", "test/d.dicom", "train/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(vindr.find_images(tmp_path)) == ["a", "b", "c"]
    assert list(vindr.find_images(tmp_path, part="test")) == ["d"]
    assert list(vindr.find_images(tmp_path / "train")) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="the files of part 'train', not 'test'; give the root"):
        vindr.find_images(tmp_path / "train", part="test")


def test_real_table():
    found = vindr.read_readings(packaged_table("vinbigdata"))
    assert len(found.boxes) == 36_096 and len(found.dropped) == 0
    assert len(found.readings) == 45_000 and found.readings["normal"].sum() == 31_818
    normal = found.readings.groupby("image_id")["normal"].all()
    assert len(normal) == 15_000 and normal.sum() == 10_606
    assert sorted(found.boxes["label"].unique()) == sorted(vindr.CLASSES)
    drawn = found.boxes["reader_id"].isin(["R8", "R9", "R10"]).mean()
    assert drawn == pytest.approx(0.955, abs=5e-4)


def test_words_and_corners_that_stand_for_no_box_keep_the_verdict(tmp_path):
    rows = ["a,No finding,14,R1,NA,NA,NULL,None", "b,No finding,14,R1,0,0,1,1"]
    rows += ["c,No finding,NA,R1,0,0,0,0", "d,ILD,,R9,1,2,3,4"]
    found = read(tmp_path, KAGGLE, *rows)
    assert found.readings["normal"].tolist() == [True] * 3 + [False] and found.dropped.empty


def test_boxes_in_shares_of_the_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="shares of the image; multiply"):
        read(tmp_path, KAGGLE, "a,No finding,14,R1,,,,", "b,ILD,5,R1,0.1,0.2,0.3,0.4")


def test_image_labels_without_a_name_are_refused_and_row_numbers_passed_over(tmp_path):
    for row, named in ((",R1,1,0,0", "image_id is ''"), ("a,,1,0,0", "reader_id is ''")):
        with pytest.raises(ValueError, match=f"line 2: {named}"):
            vindr.read_image_labels(table(tmp_path, LABELS, row))
    for name in ("", "Unnamed: 0"):
        labels = vindr.read_image_labels(table(tmp_path, f"{name},{LABELS}", "0,a,R1,1,0,0"))
        assert labels["Edema"].tolist() == [1] and list(labels)[2] == "Edema"


def test_a_finding_beside_no_finding_stands(tmp_path):
    labels = table(tmp_path, LABELS, "a,R1,1,0,1", "a,R2,0,0,1", name="labels.csv")
    found = read(tmp_path, KAGGLE, "a,ILD,5,R1,1,2,3,4", "a,ILD,5,R3,1,2,3,4", image_labels=labels)
    readings = found.readings.set_index("reader_id")["normal"]
    assert readings.to_dict() == {"R1": False, "R3": False, "R2": True}
    labels = table(tmp_path, LABELS, "a,R3,0,0,0", "a,R2,1,0,1", name="labels.csv")
    found = read(tmp_path, KAGGLE, "a,ILD,5,R3,1,2,3,4", image_labels=labels)
    assert not found.readings["normal"].any()


def test_an_image_written_otherwise_in_another_source_is_refused(tmp_path):
    rows = ["a,ILD,5,R1,1,2,3,4", "b,ILD,5,R1,1,2,3,4"]
    labels = table(tmp_path, LABELS, "a,R1,0,0,1", "b.dicom,R1,0,0,1", name="labels.csv")
    for options in ({"image_labels": labels}, {"image_hw": {"a": (9, 9), "b.dicom": (9, 9)}}):
        with pytest.raises(ValueError, match=r"'b\.dicom', which may be 'b'"):
            read(tmp_path, KAGGLE, *rows, **options)
