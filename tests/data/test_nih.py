"""nih.py: the quirks of the tables by hand, then the real tables, then real pictures."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.data import nih

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROW = "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,m,pa,2682,2749,0.143,0.139"
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
NIH_MINI = Path(__file__).parents[3] / "shared" / "nih_mini"


def table(folder: Path, *lines: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_split_headers_ages_and_case(tmp_path):
    entries = nih.read_entries(table(tmp_path, HEADER, ROW))
    assert entries.iloc[0].to_dict() == {
        "image_id": "00000001_000.png",
        "patient_id": 1,
        "follow_up": 0,
        "age": 58.0,
        "sex": "M",
        "view": "PA",
        "findings": "Cardiomegaly|Emphysema",
        "width": 2682,
        "height": 2749,
        "spacing_x_mm": 0.143,
        "spacing_y_mm": 0.139,
    }


@pytest.mark.parametrize(
    ("text", "years"), [("58", 58), ("058Y", 58), ("013M", 1), ("011D", 0), ("104W", 2), ("0", 0)]
)
def test_ages(tmp_path, text, years):
    entries = nih.read_entries(table(tmp_path, HEADER, ROW.replace("058Y", text)))
    assert entries["age"].tolist() == [years]


@pytest.mark.parametrize(
    ("cell", "column"),
    [
        (",0,1,058Y", "follow_up"),
        ("058Y", "age"),
        (",m,", "sex"),
        (",pa,", "view"),
        ("2682", "width"),
        ("2749", "height"),
        ("0.143", "spacing_x_mm"),
        ("0.139", "spacing_y_mm"),
    ],
)
def test_an_empty_cell_that_no_image_needs_is_passed_over(tmp_path, cell, column):
    gone = ",,1,058Y" if column == "follow_up" else ",," if cell.startswith(",") else ""
    second = ROW.replace("00000001_000", "00000001_001")
    entries = nih.read_entries(table(tmp_path, HEADER, ROW.replace(cell, gone), second))
    assert entries[column].isna().tolist() == [True, False]
    assert entries.drop(columns=column).notna().all(axis=None)
    assert entries.attrs["accounting"][f"empty cells of {column}"] == 1
    whole = nih.read_entries(table(tmp_path, HEADER, ROW, second))
    assert entries[column][1] == whole[column][1]


@pytest.mark.parametrize(
    ("cell", "column"), [(",0,1,", "patient_id"), ("Cardiomegaly|Emphysema", "findings")]
)
def test_an_image_needs_its_patient_and_findings(tmp_path, cell, column):
    gone = ",0,," if column == "patient_id" else ""
    with pytest.raises(ValueError, match=f"line 2: {column} is ''"):
        nih.read_entries(table(tmp_path, HEADER, ROW.replace(cell, gone)))


def test_impossible_age_is_missing_and_counted(tmp_path):
    entries = nih.read_entries(table(tmp_path, HEADER, ROW.replace("058Y", "414")))
    assert np.isnan(entries["age"][0])
    assert entries.attrs["accounting"] == {"rows read": 1, "ages over 120 set to NaN": 1}


def test_gzip_bom_windows_lines_and_trailing_commas(tmp_path):
    path = tmp_path / "entries.csv.gz"
    text = "\ufeff" + HEADER + ",\r\n" + ROW + ",\r\n\r\n"
    path.write_bytes(gzip.compress(text.encode()))
    assert len(nih.read_entries(path)) == 1


def test_kaggle_sample_headers(tmp_path):
    header = HEADER.replace("OriginalImage[Width,Height]", "OriginalImageWidth,OriginalImageHeight")
    header = header.replace(
        "OriginalImagePixelSpacing[x,y]", "OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
    )
    assert nih.read_entries(table(tmp_path, header, ROW))["height"].tolist() == [2749]


def test_case_and_blanks_do_not_matter(tmp_path):
    row = ROW.replace("Cardiomegaly|Emphysema", "cardiomegaly | EMPHYSEMA")
    entries = nih.read_entries(table(tmp_path, HEADER.lower().replace(",", " , "), row))
    assert entries["findings"].tolist() == ["Cardiomegaly|Emphysema"]
    assert len(nih.read_entries(table(tmp_path, f"\n  \n{HEADER}", f"{ROW}\n  \n"))) == 1


def test_label_matrix_by_hand():
    entries = pd.DataFrame(
        {"image_id": ["a", "b", "c"], "findings": ["Mass|Nodule", "No Finding", "Edema"]}
    )
    matrix = nih.label_matrix(entries, ["Nodule", "Edema", "No Finding"])
    assert matrix.values.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert matrix.index.tolist() == ["a", "b", "c"]
    assert matrix.dtypes.eq(np.uint8).all()
    assert nih.label_matrix(entries.iloc[:0]).shape == (0, 14)


def test_a_finding_that_nobody_asked_for_is_passed_over_and_counted():
    entries = pd.DataFrame(
        {"image_id": ["a", "b", "c"], "findings": ["Tuberculosis", "Mass | tuberculosis", "edema"]}
    )
    matrix = nih.label_matrix(entries, ["Edema", "Mass"])
    assert matrix.to_numpy().tolist() == [[0, 0], [0, 1], [1, 0]]
    assert matrix.attrs["passed over"] == {"Tuberculosis": 1, "tuberculosis": 1}
    with pytest.warns(UserWarning, match="no NIH finding: Tuberculosis.* never occurs: Atelect"):
        assert nih.label_matrix(entries).to_numpy().sum() == 2
    misspelled = entries.replace("Tuberculosis", "Pneumothroax")
    assert nih.label_matrix(misspelled, ["Edema"])["Edema"].tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="image 'a': 'Pneumothroax' .* mean 'Pneumothorax'"):
        nih.label_matrix(misspelled, ["Edema", "Pneumothorax"])


@pytest.mark.parametrize(
    ("findings", "labels", "message"),
    [
        ("Mass|Infiltrate", nih.LABELS, "'a': 'Infiltrate' .* did you mean 'Infiltration'"),
        ("Pleural Thickening", nih.LABELS, "did you mean 'Pleural_Thickening'"),
        (np.nan, nih.LABELS, "'nan' is no NIH finding; they are Atelectasis"),
        ("Pleural effusion", ["Edema", "Effusion"], "'a': 'Pleural effusion' is no"),
        ("PTX", ["Pneumothorax"], "none of the labels Pneumothorax .* such as 'PTX'"),
        (None, ["Edema"], "image 'a': 'None' is no"),
        (pd.NA, ["Edema"], "image 'a': '<NA>' is no"),
        ("", ["Edema"], "image 'a': '' is no"),
        ("Mass||Edema", ["Edema"], "image 'a': '' is no"),
        (["Mass", "Nodule"], ["Mass"], "image 'a'"),
        ("Mass", ["Edema", "Edema"], "a label occurs twice in Edema, Edema"),
    ],
)
def test_a_wanted_label_is_not_lost_in_silence(findings, labels, message):
    entries = pd.DataFrame({"image_id": ["a", "b"], "findings": [findings, "Edema"]}, dtype=object)
    with pytest.raises(ValueError, match=message):
        nih.label_matrix(entries, labels)


def test_labels_may_come_as_text_or_from_pandas_and_columns_must_be_there():
    entries = pd.DataFrame({"image_id": ["a"], "findings": ["Mass"]})
    assert nih.label_matrix(entries, "Mass").to_numpy().tolist() == [[1]]
    assert nih.label_matrix(entries, pd.Series(["Edema", "Mass"])).loc["a"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="no column findings"):
        nih.label_matrix(entries[["image_id"]])


def test_boxes_are_scaled_renamed_and_clipped(tmp_path):
    rows = ["a.png,Infiltrate,256,512,128,64,,,", "b.png,Mass,-0.5,1000,100,24.5,,,"]
    boxes = nih.read_boxes(table(tmp_path, BOX_HEADER, *rows), size=512)
    assert boxes.iloc[0].tolist() == ["a.png", "Infiltration", 128, 256, 192, 288]
    assert boxes.iloc[1].tolist() == ["b.png", "Mass", 0, 500, 49.75, 512]
    with pytest.raises(ValueError, match="shares of the image; multiply them by 1024"):
        nih.read_boxes(table(tmp_path, BOX_HEADER, "a.png,Mass,0.1,0.2,0.3,0.4,,,"))


def test_image_list(tmp_path):
    assert nih.read_image_list(table(tmp_path, "a.png", "", " b.png ")) == ["a.png", "b.png"]


def test_rereads(tmp_path):
    header = "Image Index," + ",".join(nih.REREAD_LABELS)
    table_ = nih.read_rereads(table(tmp_path, header, "a.png,NO,YES,YES,NO"))
    assert table_.loc["a.png"].tolist() == [False, True, True, False]
    twice = table(tmp_path, header, "a.png,NO,YES,YES,NO", "a.png,NO,NO,YES,NO")
    with pytest.raises(ValueError, match="line 3: image_id is 'a.png', expected each image on one"):
        nih.read_rereads(twice)


@pytest.mark.parametrize(
    "folders", [["images"], ["images_001/images", "images_012/images"], ["images_001"], ["."]]
)
def test_find_images(tmp_path, folders):
    for k, folder in enumerate(folders):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{k}.png").touch()
        (tmp_path / folder / "notes.txt").touch()
        (tmp_path / folder / "._0.png").touch()
    assert list(nih.find_images(tmp_path)) == [f"{k}.png" for k in range(len(folders))]


# --- the real tables ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entries():
    return nih.read_entries(packaged_table("nih_entries"))


def test_real_table(entries):
    assert len(entries) == 112_120 and entries["patient_id"].nunique() == 30_805
    assert entries["view"].value_counts().to_dict() == {"PA": 67_310, "AP": 44_810}
    counts = nih.label_matrix(entries, [*nih.LABELS, nih.NO_FINDING]).sum().to_dict()
    assert counts == {
        "Atelectasis": 11559,
        "Cardiomegaly": 2776,
        "Consolidation": 4667,
        "Edema": 2303,
        "Effusion": 13317,
        "Emphysema": 2516,
        "Fibrosis": 1686,
        "Hernia": 227,
        "Infiltration": 19894,
        "Mass": 5782,
        "Nodule": 6331,
        "Pleural_Thickening": 3385,
        "Pneumonia": 1431,
        "Pneumothorax": 5302,
        "No Finding": 60361,
    }


def test_real_boxes():
    boxes = nih.read_boxes(packaged_table("nih_boxes"))
    assert len(boxes) == 984 and boxes["image_id"].nunique() == 880
    hearts = boxes[boxes["label"] == "Cardiomegaly"]
    assert round((hearts["x_max"] - hearts["x_min"]).mean()) == 480
    assert round((hearts["y_max"] - hearts["y_min"]).mean()) == 381
    assert (boxes["label"] == "Infiltration").sum() == 123


def test_real_rereads(entries):
    rereads = nih.read_rereads(packaged_table("google2019"))
    assert len(rereads) == 4376
    labels = nih.label_matrix(entries).loc[rereads.index, "Pneumothorax"] == 1
    both = (labels & rereads["Pneumothorax"]).sum()
    assert both / labels.sum() == pytest.approx(0.458, abs=5e-4)


@pytest.mark.skipif(
    not NIH_MINI.is_dir(), reason="needs the real radiographs of ../shared/nih_mini"
)
def test_real_pictures(entries):
    found = nih.find_images(NIH_MINI)
    assert len(found) == 460 and set(found) <= set(entries["image_id"])
    originals = sorted((NIH_MINI / "originals_1024").glob("*.png"))
    modes = []
    for path in originals:
        image = nih.read_image(path)
        assert image.shape == (1024, 1024) and image.dtype == np.uint8
        # The 256-pixel copy is the original averaged over 4 x 4 pixels.
        small = image.reshape(256, 4, 256, 4).mean((1, 3))
        assert np.abs(small - nih.read_image(found[path.name])).max() <= 1
        with Image.open(path) as file:
            modes.append(file.mode)
    assert sorted(modes) == ["L"] * 4 + ["RGBA"] * 2


def test_words_for_nothing_are_empty_where_a_value_is_not_needed(tmp_path):
    row = "00000001_000.png,Mass,NA,1,nan,None,NULL,NA,N/A,<NA>,na"
    entries = nih.read_entries(table(tmp_path, HEADER, row))
    assert entries.drop(columns=["image_id", "patient_id", "findings"]).isna().all(axis=None)
    assert entries.attrs["accounting"]["empty cells of age"] == 1
