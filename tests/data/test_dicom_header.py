"""dicom_header.py: what can be opened, and elements that cannot be read."""

import copy
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import gradient, lut_item, make_dataset, to_bytes, with_element
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import (
    get_decoder,
)

from cxr_helpers.data.dicom import (
    DicomError,
    load_dataset,
    modality_values,
    read_dicom,
    stored_values,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
LEVELS = np.array([[0, 1000], [3000, 4095]])


def bundled(name: str) -> Path:
    """Return the path of a file inside the installed pydicom; nothing is downloaded."""
    return Path(get_testdata_file("CT_small.dcm")).parent / name


# --- sources --------------------------------------------------------------------------------------


def test_path_bytes_file_and_dataset_give_the_same(tmp_path):
    data = to_bytes(make_dataset(gradient(), WindowCenter=2000, WindowWidth=3000))
    path = tmp_path / "a.dcm"
    path.write_bytes(data)
    images = [read_dicom(s) for s in (path, str(path), data, io.BytesIO(data))]
    images.append(read_dicom(pydicom.dcmread(path)))
    for image in images[1:]:
        np.testing.assert_array_equal(image.pixels, images[0].pixels)
        assert image.steps == images[0].steps


@pytest.mark.parametrize("content", [None, b"", b"no DICOM at all"])
def test_a_file_that_cannot_be_parsed_is_named_once(tmp_path, content):
    path = tmp_path / "a.dcm"
    if content is not None:
        path.write_bytes(content)
    for read in (load_dataset, read_dicom):
        with pytest.raises(DicomError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and str(caught.value).count("a.dcm") == 1


def test_a_decoder_that_is_not_installed_is_asked_for(monkeypatch):
    dataset = load_dataset(bundled("JPEG2000.dcm"))
    monkeypatch.setattr(get_decoder(uid.JPEG2000), "_available", {})
    for read in (read_dicom, stored_values):
        with pytest.raises(DicomError, match="no decoder for JPEG 2000.* pip install pylibjpeg"):
            read(dataset)


def test_the_dataset_is_not_changed():
    dataset = make_dataset(gradient(), RescaleSlope=2, RescaleIntercept=1, WindowCenter=1)
    before = copy.deepcopy(dataset)
    read_dicom(dataset)
    assert dataset == before and dataset.file_meta == before.file_meta


# --- what is not needed is passed over with a word ------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "word"),
    [
        ("PixelSpacing", "DS", b"0,143\\0,143 ", "spacing passed over: PixelSpacing is '0,143'"),
        ("PixelSpacing", "DS", b"0.143,0.143 ", "PixelSpacing is '0.143,0.143', not a number"),
        ("PixelSpacing", "DS", b"0.14", "PixelSpacing is 0.14, expected two numbers above 0"),
        ("PixelSpacing", "DS", b"0\\0 ", "expected two numbers above 0"),
        ("ImagerPixelSpacing", "DS", b"nan\\1 ", "expected two numbers above 0"),
        ("PixelAspectRatio", "IS", b"1:1 ", "PixelAspectRatio is '1:1', not a number"),
        ("PixelPaddingValue", "LO", b"N/A ", "padding passed over: PixelPaddingValue is 'N/A'"),
        ("PixelPaddingValue", "US", b"\1\0\2\0", "PixelPaddingValue is [1, 2]"),
        ("PixelPaddingValue", "US", b"\1", "PixelPaddingValue cannot be parsed"),
        ("HighBit", "LO", b"n/a ", "high bit passed over: HighBit is 'n/a'"),
        ("PlanarConfiguration", "LO", b"n/a ", ""),
        ("SpecificCharacterSet", "CS", b"ISO_IR 999", ""),
        ("PresentationLUTShape", "CS", b"\xff\xff", ""),
    ],
)
def test_an_element_that_cannot_be_read_and_is_not_needed(keyword, vr, value, word):
    plain = read_dicom(make_dataset(gradient()))
    image = read_dicom(with_element(to_bytes(make_dataset(gradient())), keyword, vr, value))
    np.testing.assert_array_equal(image.pixels, plain.pixels)
    assert image.spacing_mm is None and image.padding == 0
    assert word in " | ".join(image.steps) and "again" not in " | ".join(image.steps)


def test_the_next_spacing_is_taken_where_one_cannot_be_read():
    data = to_bytes(make_dataset(gradient(), ImagerPixelSpacing=[0.2, 0.2]))
    image = read_dicom(with_element(data, "PixelSpacing", "DS", b"0,1\\0,1 "))
    assert image.spacing_mm == (0.2, 0.2) and "PixelSpacing is '0,1'" in image.steps[-1]


def test_a_padding_limit_that_cannot_be_read_leaves_the_value():
    stored = np.array([[9, 9, 10, 11], [20, 30, 40, 50]])
    dataset = make_dataset(stored)
    dataset.add_new("PixelPaddingValue", "US", 9)
    image = read_dicom(with_element(to_bytes(dataset), "PixelPaddingRangeLimit", "LO", b"none"))
    assert image.padding == 0.25 and "PixelPaddingRangeLimit is 'none'" in image.steps[1]


@pytest.mark.parametrize("value", [b"1,0 ", b"1\\2 ", b"abc "])
def test_a_rescale_that_cannot_be_read_takes_the_window_with_it(value):
    dataset = make_dataset(gradient(), RescaleIntercept=-1024, WindowCenter=0, WindowWidth=99)
    data = with_element(to_bytes(dataset), "RescaleSlope", "DS", value)
    image = read_dicom(data)
    np.testing.assert_array_equal(image.pixels, read_dicom(make_dataset(gradient())).pixels)
    assert "modality transform, and with it the VOI, passed over" in image.steps[1]
    with pytest.raises(DicomError, match="RescaleSlope .* the window has no scale"):
        read_dicom(data, voi="window")
    with pytest.raises(DicomError, match="RescaleSlope"):
        modality_values(gradient(), load_dataset(data))


def test_a_broken_modality_table_is_passed_over_and_said():
    item = lut_item(np.arange(4096))
    item.LUTData = [1, 2, 3]
    dataset = make_dataset(gradient(), ModalityLUTSequence=[item])
    assert "3 entries where 4096 are promised" in read_dicom(dataset).steps[1]
    with pytest.raises(DicomError, match="3 entries"):
        modality_values(gradient(), dataset)


def test_of_several_windows_only_the_wanted_one_must_be_a_number():
    data = to_bytes(make_dataset(LEVELS, WindowWidth=[9, 4096]))
    data = with_element(data, "WindowCenter", "DS", b"\\2048 ")
    assert read_dicom(data).voi == "percentiles"
    assert read_dicom(data, index=1).window == (2048, 4096)  # not 2048 with the width 9


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("Rows", "LO", b"36"),
        ("Columns", "DS", b"40"),
        ("SamplesPerPixel", "IS", b"1 "),
        ("BitsStored", "LO", b"12"),
        ("NumberOfFrames", "IS", b"1.0 "),
        ("NumberOfFrames", "IS", b""),
        ("PhotometricInterpretation", "CS", b"monochrome2 "),
    ],
)
def test_text_that_is_the_right_value(keyword, vr, value):
    data = with_element(to_bytes(make_dataset(gradient())), keyword, vr, value)
    np.testing.assert_array_equal(stored_values(data), gradient())
