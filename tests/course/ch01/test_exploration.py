"""The tables of notebook 01: by hand, and against the facts known of the real tables."""

import ast
import importlib
import re

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset

from cxr_helpers import phantom
from cxr_helpers.course.ch01 import exploration
from cxr_helpers.course.core.settings import project_root
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.data import nih, vindr

FINDINGS = {"a": "Effusion", "b": "Effusion|Edema", "c": "No Finding", "d": "Pneumothorax"}


def fused(*rows):
    return pd.DataFrame(
        rows, columns=["image_id", "label", "x_min", "y_min", "x_max", "y_max", "readers"]
    )


@pytest.fixture(scope="module")
def labels():
    table = pd.DataFrame({"image_id": list(FINDINGS), "findings": list(FINDINGS.values())})
    return nih.label_matrix(table)


@pytest.fixture(scope="module")
def real_vindr():
    return vindr.read_readings(packaged_table("vinbigdata"))


def readings(rows, boxes):
    """Readings from (image, reader) pairs and (image, reader) of each box."""
    box = {"label": "ILD", "x_min": 0.0, "y_min": 0.0, "x_max": 9.0, "y_max": 9.0}
    drawn = pd.DataFrame([{"image_id": i, "reader_id": r, **box} for i, r in boxes])
    table = pd.DataFrame(rows, columns=["image_id", "reader_id"])
    normal = [(i, r) not in boxes for i, r in rows]
    return vindr.Readings(drawn, table.assign(normal=normal), pd.DataFrame())


def test_label_noise_by_hand(labels):
    seen = pd.DataFrame(False, index=["d", "c"], columns=list(nih.REREAD_LABELS))
    seen["Pneumothorax"] = [True, True]
    table = exploration.label_noise(labels, seen)
    assert table.loc["Pneumothorax"].tolist() == [1, 2, 1.0, 0.5]
    assert table.loc["Nodule/Mass"].tolist() == [0, 0, 0, 0]
    seen.loc["c", "Pneumothorax"], seen.loc["c", "Fracture"] = False, True
    shares = exploration.reread_shares(labels, seen)
    assert list(shares.index) == ["Pneumothorax", "No Finding"]
    assert shares["Pneumothorax"].tolist() == [100, 0]
    assert shares[exploration.ANY].tolist() == [100, 100]


def test_label_noise_of_the_real_tables():
    rereads = nih.read_rereads(packaged_table("google2019"))
    entries = nih.read_entries(packaged_table("nih_entries"))
    real = nih.label_matrix(entries[entries["image_id"].isin(rereads.index)])
    noise = exploration.label_noise(real, rereads)
    assert noise.loc["Pneumothorax", ["ppv", "sensitivity"]].round(3).tolist() == [0.458, 0.458]
    assert noise.loc["Nodule/Mass", ["ppv", "sensitivity"]].round(3).tolist() == [0.563, 0.423]
    quiet = real.loc[rereads.index].sum(axis=1) == 0
    assert round(rereads[quiet].any(axis=1).mean(), 2) == 0.36


def test_exact_labels_come_in_the_order_of_the_images(tmp_path):
    assert exploration.exact_labels(tmp_path, ["a"]) is None
    path = tmp_path / "exact_findings.csv"
    path.write_text("Image Index,Exact Findings\na,No Finding\nb,Edema|Mass\n")
    exact = exploration.exact_labels(str(tmp_path), ["b", "a"])
    assert list(exact.index) == ["b", "a"] and list(exact.columns) == list(nih.LABELS)
    assert exact.loc["b"][exact.loc["b"] == 1].index.tolist() == ["Edema", "Mass"]
    assert exact.loc["a"].sum() == 0
    with pytest.raises(ValueError, match="does not name 1 of 2 images, such as 'c'"):
        exploration.exact_labels(tmp_path, ["a", "c"])
    path.write_text("Image Index,Finding Labels\na,No Finding\n")
    with pytest.raises(ValueError, match="no column 'Exact Findings'"):
        exploration.exact_labels(tmp_path, ["a"])


def test_the_looks_that_the_notebook_draws_are_the_demos(monkeypatch):
    monkeypatch.syspath_prepend(project_root() / "data_scripts")
    looks = importlib.import_module("demo_tables").LOOKS
    source = project_root() / "notebooks" / "source" / "01_data_exploration.py"
    rows = re.search(r"^rows = (.*)$", source.read_text(encoding="utf-8"), re.MULTILINE)[1]
    for name, values in ast.literal_eval(rows).items():
        assert values == [getattr(looks[look], name) for look in ("realistic", "teaching")], name


def test_nodules_that_vanish_at_224(real_vindr):
    boxes = real_vindr.boxes
    long_side = boxes[["x_max", "y_max"]].quantile(0.995).max()
    nodules = boxes[boxes["label"] == "Nodule/Mass"]
    at_224 = exploration.short_sides(nodules) * 224 / long_side
    assert (at_224 < 8).mean() == pytest.approx(0.555, abs=0.01)


def test_a_short_side_is_the_shorter_one_and_areas_are_compared_by_their_medians():
    columns = ["label", "x_min", "y_min", "x_max", "y_max"]
    rows = [["a", 10, 0, 30, 100], ["a", 0, 0, 50, 2], ["b", 0, 0, 10, 10], ["a", 0, 0, 30, 10]]
    boxes = pd.DataFrame(rows, columns=columns)
    assert exploration.short_sides(boxes).tolist() == [20, 2, 10, 10]
    assert exploration.compare_areas(boxes).startswith(
        "A box of a has 3 times the area of one of b"
    )


def test_readers_by_hand():
    made = readings([("a", "R1"), ("a", "R2"), ("b", "R1")], [("a", "R2")])
    table = exploration.reader_table(made)
    assert table.loc["R1"].tolist() == [100, 100, 0]
    assert table.loc["R2"].tolist() == [0, 100, 1]
    assert exploration.read_by_all(made, ["R1", "R2"]).to_dict() == {"abnormal": 100, "normal": 0}
    assert exploration.read_by_all(made, ["R1"]).to_dict() == {"abnormal": 100, "normal": 100}


def test_reader_confound_of_the_real_table(real_vindr):
    shares = exploration.read_by_all(real_vindr, ["R8", "R9", "R10"])
    assert shares.round(1).to_dict() == {"abnormal": 94.4, "normal": 12.8}


def test_the_example_of_fusion_has_a_box_of_all_and_a_box_of_one():
    boxes = fused(
        ("a", "ILD", 0, 0, 90, 90, 3),  # no box of one reader
        ("b", "ILD", 0, 0, 9, 9, 3),
        ("b", "ILD", 0, 0, 5, 9, 1),
        ("c", "ILD", 0, 0, 8, 8, 3),
        ("c", "ILD", 0, 0, 6, 8, 1),
    )
    assert exploration.telling_fusion(boxes) == "c"
    assert exploration.telling_fusion(boxes, most=1) == "a"
    with pytest.raises(ValueError, match="no fused box"):
        exploration.telling_fusion(boxes[:0])


def test_examples_come_in_the_order_of_the_names_boxed_or_not():
    entries = pd.DataFrame({"image_id": list("abcd"), "findings": ["B", "A|B", "A", "A"]})
    two = pd.DataFrame({"image_id": ["d", "c", "c"]})
    shown = exploration.marked_examples(entries, two, ["A", "B", "C"])
    assert shown["image_id"].tolist() == ["d", "a"] and list(shown) == list(entries)
    assert exploration.marked_examples(entries, two[:0], ["A"])["image_id"].tolist() == ["c"]


def test_an_example_has_other_findings_where_none_stands_alone():
    """A subset of the download may have no image with a lone mass."""
    entries = pd.DataFrame({"image_id": list("abc"), "findings": ["C", "A|B", "B|A|C"]})
    none = pd.DataFrame({"image_id": []})
    assert exploration.marked_examples(entries, none, ["A", "B"])["image_id"].tolist() == ["b", "c"]
    boxed = pd.DataFrame({"image_id": ["c"]})
    assert exploration.marked_examples(entries, boxed, ["A"])["image_id"].tolist() == ["c"]
    # Data without any of the findings still has pictures to show.
    assert exploration.marked_examples(entries, none, ["D", "E"])["image_id"].tolist() == ["a", "b"]


def test_phantom_boxes_leave_out_what_left_no_trace():
    box = phantom.Box("Nodule/Mass", (1.0, 2.0, 3.0, 4.0), 0.1)
    table = exploration.phantom_boxes(phantom.Radiograph(np.zeros((9, 9)), (None, box)))
    assert table.to_numpy().tolist() == [["Nodule/Mass", 1, 2, 3, 4]]
    assert exploration.phantom_boxes(phantom.Radiograph(np.zeros((9, 9)), ())).empty


def write_dicom(path, photometric, *, window, values=(0, 255)):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made = pydicom.Dataset()
    made.file_meta, made.PhotometricInterpretation = meta, photometric
    made.Rows, made.Columns, made.SamplesPerPixel = 1, len(values), 1
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation, made.PixelData = 7, 0, bytes(values)
    if window:
        made.WindowCenter, made.WindowWidth = 50, 100
    made.save_as(path, implicit_vr=False, little_endian=True)
    return path


def test_find_dicom_wants_kind_and_window_and_takes_the_emptiest_range(tmp_path):
    files = {
        "a": write_dicom(tmp_path / "a.dicom", "MONOCHROME2", window=True),
        "b": write_dicom(tmp_path / "b.dicom", "MONOCHROME1", window=False, values=(7, 8)),
        "c": write_dicom(tmp_path / "c.dicom", "MONOCHROME1", window=True),
        "d": write_dicom(tmp_path / "d.dicom", "MONOCHROME1", window=True, values=(100, 140)),
        "e": write_dicom(tmp_path / "e.dicom", "MONOCHROME1", window=True, values=(9, 9)),
    }
    files["e"].write_bytes(files["e"].read_bytes()[:-2])  # cut off, so it cannot be decoded
    assert exploration.find_dicom(files, photometric="MONOCHROME1") == files["d"]
    assert exploration.find_dicom(files, photometric="MONOCHROME1", at_most=3) == files["c"]
    assert exploration.find_dicom(files, photometric="MONOCHROME1", at_most=2) is None
    assert exploration.find_dicom({}, photometric="MONOCHROME2") is None


def test_center_and_gray_shares():
    pixels = np.zeros((2, 10, 10), np.uint8)
    pixels[1, 2:8, 2:8] = 255
    middle = exploration.center(pixels)
    assert middle.shape == (2, 6, 6)
    shares = exploration.gray_shares(middle)
    assert shares[0].tolist() == [1] + [0] * 15
    assert shares[1].tolist() == [0] * 15 + [1]


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.2, 0.8), (3.0, 0.95, 1.0)])
def test_site_accuracy_tells_difference_from_none(shift, low, high):
    rng = np.random.default_rng(0)
    shares = {"A": rng.normal(size=(60, 4)), "B": rng.normal(size=(60, 4)) + shift}
    groups = {"A": np.arange(60) // 2, "B": np.arange(60)}
    assert low <= exploration.site_accuracy(shares, groups) <= high


def test_dicom_kinds_counts_every_combination(tmp_path):
    files = {
        name: write_dicom(tmp_path / name, photometric, window=window)
        for name, photometric, window in [
            ("a", "MONOCHROME1", True),
            ("b", "MONOCHROME2", False),
            ("c", "MONOCHROME2", False),
        ]
    }
    table = exploration.dicom_kinds(files)
    assert table.loc["MONOCHROME1"].tolist() == [1, 0]
    assert table.loc["MONOCHROME2"].tolist() == [0, 2]
    assert exploration.dicom_kinds(files, at_most=1).to_numpy().sum() == 1
    assert exploration.dicom_kinds({}).shape == (0, 2)


def test_tables_that_do_not_meet_show_one_id_of_each_side(labels):
    seen = pd.DataFrame(True, index=["a.png", "b"], columns=list(nih.REREAD_LABELS))
    for call in (exploration.label_noise, exploration.reread_shares):
        with pytest.raises(ValueError, match="1 of 2 images .* such as 'a.png'; .* such as 'a'"):
            call(labels, seen)
    made = readings([("a", "R1"), ("b", "R1")], [("a.dicom", "R1")])
    named = readings([("a", "R1"), ("b", "R1")], [("a", "R2")])
    for call in (exploration.reader_table, lambda r: exploration.read_by_all(r, ["R1"])):
        with pytest.raises(ValueError, match="image_id .* such as 'a.dicom'; .* such as 'a'"):
            call(made)
        with pytest.raises(ValueError, match="reader_id .* such as 'R2'; .* such as 'R1'"):
            call(named)


SITE, IMAGES, READ = np.zeros((6, 2)), np.zeros((1, 4, 4), np.uint8), [("a", "R1")]


@pytest.mark.parametrize(
    ("message", "function", "first", "more"),
    [
        (
            "is no list of readers; there are R1",
            "read_by_all",
            readings(READ, READ),
            {"names": "R1"},
        ),
        ("is no list of readers", "read_by_all", readings(READ, READ), {"names": ["R1", "R9"]}),
        ("share must be above 0", "center", IMAGES, {"share": -1}),
        ("share must be above 0", "center", IMAGES, {"share": np.nan}),
        ("expected .N, H, W. uint8, got", "gray_shares", np.zeros((1, 4, 4)), {}),
        ("expected .N, H, W. uint8, got", "gray_shares", IMAGES[0], {}),
        ("bins must divide 256, 10", "gray_shares", IMAGES, {"bins": 10}),
        ("two sites or more", "site_accuracy", {"A": SITE}, {"groups": {"A": range(6)}}),
        (
            "a group for each row",
            "site_accuracy",
            dict.fromkeys("AB", SITE),
            {"groups": {"A": range(6)}},
        ),
    ],
)
def test_what_means_nothing_is_refused(message, function, first, more):
    with pytest.raises(ValueError, match=message):
        getattr(exploration, function)(first, **more)


def test_a_broken_header_costs_one_row(tmp_path):
    files = {
        "a": tmp_path / "missing",
        "b": write_dicom(tmp_path / "b", "MONOCHROME1", window=False),
        "c": str(write_dicom(tmp_path / "c", "MONOCHROME2", window=True)),
    }
    files["d"] = write_dicom(tmp_path / "d", "MONOCHROME1", window=True)
    files["d"].write_bytes(files["d"].read_bytes().replace(b"100.0", b"1x0.0"))
    table = exploration.dicom_kinds(files)
    assert table.sum(axis=1).to_dict() == {"MONOCHROME1": 2, "MONOCHROME2": 1, "unreadable": 1}
    assert table.loc["MONOCHROME1", "with a window"] == 0
    assert exploration.find_dicom(files, photometric="MONOCHROME2") == tmp_path / "c"
