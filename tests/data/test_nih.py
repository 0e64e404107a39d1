"""nih.py: the quirks of the tables by hand, then the real tables, then real pictures."""

import errno
import gzip
import struct
import zlib
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


GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_gray_whatever_the_mode(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(GRAY).convert("RGB" if mode == "RGBA" else "L").convert(mode).save(path)
    image = nih.read_image(path)
    np.testing.assert_array_equal(image, GRAY)
    assert image.dtype == np.uint8 and image.flags.writeable


def test_alpha_is_dropped_and_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(np.dstack([GRAY, GRAY, GRAY, GRAY[::-1]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(nih.read_image(tmp_path / "a.png"), GRAY)
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    assert nih.read_image(tmp_path / "b.png").tolist() == [[255, 0]]


def save16(folder, values, name="a.png"):
    Image.fromarray(np.asarray(values, dtype=np.uint16)).save(folder / name)
    return folder / name


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 15])
def test_fewer_bits_in_a_file_of_sixteen_are_scaled_with_a_warning(tmp_path, depth):
    path = save16(tmp_path, [[0, 2**depth - 1], [2 ** (depth - 1), 0]])
    with pytest.warns(UserWarning, match=f"a.png: 16 bits .* {2**depth - 1}, .*bits={depth},"):
        image = nih.read_image(path)
    assert image.tolist() == [[0, 255], [128, 0]]
    np.testing.assert_array_equal(nih.read_image(str(path), bits=depth), image)


def test_bits_that_are_named_hold_for_every_file_without_a_warning(tmp_path, recwarn):
    assert nih.read_image(save16(tmp_path, [[0, 1023]]), bits=12).tolist() == [[0, 64]]
    assert nih.read_image(save16(tmp_path, [[0, 32768]])).tolist() == [[0, 128]]
    assert nih.read_image(save16(tmp_path, [[0, 0]])).tolist() == [[0, 0]]
    assert nih.read_image(save16(tmp_path, [[0, 65535]]), bits=np.int64(16)).max() == 255
    Image.fromarray(GRAY).save(tmp_path / "b.png")
    np.testing.assert_array_equal(nih.read_image(tmp_path / "b.png", bits=12), GRAY)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("bits", "message"),
    [(bits, "bits must be a whole number from 1 to 16") for bits in (0, 17, 12.0, "12", -1)]
    + [(12, "a.png: the value 4096 needs 13 bits, not 12")],
)
def test_bits_that_do_not_fit_are_refused(tmp_path, bits, message):
    with pytest.raises(ValueError, match=message):
        nih.read_image(save16(tmp_path, [[0, 4096]]), bits=bits)


def png_of(folder, values, kind):
    """A PNG of 16 bits a channel, which Pillow does not write: 2 is RGB, 4 gray with alpha."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    values = np.asarray(values, dtype=">u2")
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    whole = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + whole)
    return folder / "a.png"


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_color_of_sixteen_bits_is_taken_only_where_it_fills_them(tmp_path, kind, channels):
    ramp = np.repeat(GRAY[:, :, None], channels, axis=2).astype(np.uint16)
    image = nih.read_image(png_of(tmp_path, ramp * 257, kind))
    np.testing.assert_array_equal(image, GRAY)
    dark = ramp * 16  # of 12 bits
    with pytest.raises(ValueError, match="a.png: color or alpha of 16 bits"):
        nih.read_image(png_of(tmp_path, dark, kind))


def test_color_is_told_and_a_gray_jpeg_in_rgb_is_none(tmp_path, recwarn):
    Image.fromarray(GRAY).convert("RGB").save(tmp_path / "a.jpg")
    assert np.abs(nih.read_image(tmp_path / "a.jpg").astype(int) - GRAY).max() < 16
    assert not recwarn.list
    rgb = np.repeat(GRAY[:, :, None], 3, axis=2)
    rgb[0, 0] = [255, 0, 0]
    Image.fromarray(rgb).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="a.png: 0.4% of the pixels are in color"):
        assert (nih.read_image(tmp_path / "a.png")[1:] == GRAY[1:]).all()


@pytest.mark.parametrize("values", [GRAY, GRAY.astype(np.uint16) * 257], ids=["8", "16"])
def test_a_picture_stands_upright_as_its_exif_tag_says(tmp_path, values):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(nih.read_image(tmp_path / "a.png"), np.rot90(GRAY, -1))
    Image.fromarray(values).save(tmp_path / "a.png", exif=b"Exif\0\0no tiff at all")
    np.testing.assert_array_equal(nih.read_image(tmp_path / "a.png"), GRAY)


def test_what_is_no_gray_picture_is_named(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.jpg")
    Image.fromarray(np.ones((4, 4), np.int32)).save(tmp_path / "a.tiff")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    for name, words in {
        "a.jpg": "stored as CMYK",
        "a.tiff": "stored as I",
        "a.dcm": "but a DICOM file; read it with read_dicom",
        "a.zip": "but an archive; unpack it",
    }.items():
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            nih.read_image(tmp_path / name)


def test_a_failing_disk_is_no_damaged_download(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(nih.Image, "open", fail)
    with pytest.raises(ValueError, match="Too many open files") as caught:
        nih.read_image(tmp_path / "a.png")
    assert "download" not in str(caught.value)


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
