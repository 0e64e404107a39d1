"""dicom.py: hand-sized values, and parity with pydicom."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import gradient, lut_item, make_dataset, to_bytes
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import (
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    pixel_array,
)

from cxr_helpers.data.dicom import (
    DicomError,
    DicomImage,
    display_values,
    load_dataset,
    modality_values,
    read_dicom,
    stored_values,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
LEVELS = np.array([[0, 1000], [3000, 4095]])


def show(stored, **elements) -> DicomImage:
    return read_dicom(make_dataset(np.asarray(stored), **elements))


# --- degenerate pictures --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "elements", "message"),
    [
        ([[7]], {}, "every pixel has the value 7"),
        (np.zeros((4, 4), int), {}, "every pixel has the value 0"),
        (np.full((3, 3), 5), {"PixelPaddingValue": 5}, "every pixel is padding"),
    ],
)
def test_one_value_is_no_picture(stored, elements, message):
    with pytest.raises(DicomError, match=message):
        show(stored, **elements)


def test_one_row():
    image = show([[0, 5, 10]])
    assert image.pixels.tolist() == [[0, 0.5, 1]]
    assert image.pixels.dtype == np.float32 and image.pixels.flags.owndata


# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("center", "width", "function", "expected"),
    [  # PS3.3 C.11.2.1.2.1 and C.11.2.1.3
        (2048, 4096, "LINEAR", (LEVELS - 2047.5) / 4095 + 0.5),
        (1000, 100, "LINEAR", [[0, (1000 - 999.5) / 99 + 0.5], [1, 1]]),
        (2000, 4000, "LINEAR_EXACT", np.clip((LEVELS - 2000) / 4000 + 0.5, 0, 1)),
        (2000, 1000, "SIGMOID", 1 / (1 + np.exp(-4 * (LEVELS - 2000) / 1000))),
        (2000, 1e-3, "SIGMOID", [[0, 0], [1, 1]]),  # so steep that exp overflows
    ],
)
def test_windows_by_hand(center, width, function, expected):
    image = show(LEVELS, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-7)
    assert image.voi == "window" and image.window == (center, width)
    assert image.steps[-1] == f"window 1 of 1: center {center}, width {width:g}, {function}"


def test_window_is_in_modality_units_and_a_negative_slope_turns_the_picture_over():
    def windowed(slope, intercept, center):
        rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        return show(LEVELS, WindowCenter=center, WindowWidth=4096, **rescale).pixels

    plain = show(LEVELS, WindowCenter=2048, WindowWidth=4096).pixels
    np.testing.assert_allclose(windowed(1, -1000, 1048), plain, atol=1e-7)
    np.testing.assert_allclose(windowed(-1, 4095, 2048), 1 - plain, atol=1e-6)


def test_monochrome1_is_inverted():
    one = show(LEVELS, PhotometricInterpretation="MONOCHROME1")
    two = show(LEVELS)
    np.testing.assert_allclose(one.pixels, 1 - two.pixels, atol=1e-7)
    assert one.steps[-1] == "MONOCHROME1: inverted"


# --- which values are shown -----------------------------------------------------------------------


def test_no_window_means_percentiles_named_in_the_result():
    values = gradient(100, 100)
    image = show(values)
    low, high = np.percentile(values, [0.5, 99.5], method="inverted_cdf")
    np.testing.assert_allclose(
        image.pixels, np.clip((values - low) / (high - low), 0, 1), atol=1e-6
    )
    assert image.voi == "percentiles"
    assert image.steps[-1] == f"percentiles 0.5 and 99.5: {low:g} to {high:g}"


def test_percentiles_survive_an_outlier():
    values = gradient(100, 100, top=1000)
    values[0, 0] = 4095
    assert show(values).pixels.mean() == pytest.approx(
        show(np.minimum(values, 1000)).pixels.mean(), abs=0.01
    )


def test_percentiles_of_a_nearly_constant_image_show_all_there_is():
    values = np.full((100, 100), 500)
    values[0, 0] = 700
    pixels = show(values).pixels
    assert pixels[0, 0] == 1 and pixels[0, 1] == 0


@pytest.mark.parametrize("index", [0, 1, 2])
def test_many_windows(index):
    windows = {"WindowCenter": [100, 2000, 3000], "WindowWidth": [50, 1000, 500]}
    dataset = make_dataset(gradient(), **windows)
    image = read_dicom(dataset, index=index)
    assert image.window == (windows["WindowCenter"][index], windows["WindowWidth"][index])
    assert f"window {index + 1} of 3" in image.steps[-1]


@pytest.mark.parametrize("index", [3, -1])
@pytest.mark.parametrize("windows", [{}, {"WindowCenter": [100, 2000], "WindowWidth": [50, 1000]}])
def test_an_index_that_there_is_not_is_an_error(windows, index):
    dataset = make_dataset(gradient(), **windows)
    with pytest.raises(DicomError, match=f"no table or window of index {index}.*pass index=0"):
        read_dicom(dataset, index=index)
    assert read_dicom(dataset, voi="percentiles", index=index).voi == "percentiles"


def test_a_table_comes_before_a_window():
    dataset = make_dataset(LEVELS, WindowCenter=2048, WindowWidth=4096)
    dataset.VOILUTSequence = [lut_item(np.arange(4096) * 16)]
    assert read_dicom(dataset).voi == "lut"
    assert read_dicom(dataset, voi="window").voi == "window"
    assert read_dicom(dataset, voi="percentiles").voi == "percentiles"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"WindowCenter": 100, "WindowWidth": 0}, "greater than or equal to 1"),
        ({"WindowCenter": 1e6, "WindowWidth": 10}, "one gray for all values"),
        ({"WindowCenter": [1, 2], "WindowWidth": 5}, "2 window centers but 1 widths"),
        ({"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "CUBIC"),
    ],
)
def test_an_unusable_window_is_passed_over_and_said(elements, reason):
    dataset = make_dataset(gradient(), **elements)
    image = read_dicom(dataset)
    assert image.voi == "percentiles" and reason in image.steps[-1]
    with pytest.raises(DicomError, match="pass voi='percentiles'"):
        read_dicom(dataset, voi="window")


@pytest.mark.parametrize(
    ("voi", "message"),
    [("lut", "no VOI lut"), ("window", "no VOI window"), ("best", "voi must be")],
)
def test_a_named_choice_that_is_missing_is_an_error(voi, message):
    dataset = make_dataset(gradient(), WindowCenter=100)  # half a window is none
    assert read_dicom(dataset).voi == "percentiles"
    with pytest.raises(DicomError, match=message):
        read_dicom(dataset, voi=voi)


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_voi_table_equals_pydicom(vr):
    entries = (np.linspace(0, 1, 3000) ** 2 * 65535).astype(int)
    dataset = make_dataset(gradient())
    dataset.VOILUTSequence = [lut_item(entries, first=500, vr=vr)]
    expected = apply_voi(pixel_array(dataset), dataset) / 65535
    np.testing.assert_allclose(read_dicom(dataset).pixels, expected, atol=1e-7)


def words(entries, dtype="<u2", **descriptor):
    """A table whose entries are stored as bytes."""
    item = lut_item(entries, **descriptor)
    item.add_new("LUTData", "OW", np.asarray(entries).astype(dtype).tobytes())
    return item


TABLES = {  # one item, and the share of white that it gives for a value
    # pydicom keeps the index in 8 bits here, so 256 would show as 0.
    "8 bits, 4096 entries": (lut_item(np.arange(4096) // 16, bits=8), lambda x: x // 16 / 255),
    "more bits than it says": (lut_item(np.arange(4096), bits=8), lambda x: x / 4095),
    "as many bits as it says": (lut_item(np.arange(4096), bits=12), lambda x: x / 4095),
    "fewer bits than it says": (lut_item(np.arange(4096)), lambda x: x / 4095),
    "65536 entries, told as 0": (lut_item(np.arange(65536)), lambda x: x / 65535),
    "in bytes": (words(np.arange(256)[::-1], "u1", bits=8), lambda x: (255 - x).clip(0) / 255),
    "in bytes, odd": (words(np.arange(255)[::-1], "u1", bits=8), lambda x: (254 - x).clip(0) / 255),
    "in words": (words(np.arange(4096) * 16), lambda x: x * 16 / 65535),
}


@pytest.mark.parametrize(("item", "white"), TABLES.values(), ids=TABLES)
def test_voi_tables_by_hand(item, white):
    stored = np.array([[0, 100], [254, 4000]])
    image = show(stored, VOILUTSequence=[item])
    np.testing.assert_allclose(image.pixels, white(stored), atol=1e-6)
    said, held = item.LUTDescriptor[2], int(image.steps[-1].split(", ")[1].split()[0])
    assert (f"its descriptor says {said}" in image.steps[-1]) == (said != held)


def test_voi_table_in_big_endian_words():
    item = words(np.arange(4096) * 16, ">u2")
    dataset = make_dataset(LEVELS, syntax=uid.ExplicitVRBigEndian, VOILUTSequence=[item])
    image = read_dicom(to_bytes(dataset))
    np.testing.assert_allclose(image.pixels, LEVELS * 16 / 65535, atol=1e-7)


def test_a_table_of_8_bits_packed_two_to_a_word_and_entries_written_as_signed():
    packed = lut_item(np.arange(256), bits=8)
    packed.add_new("LUTData", "US", np.arange(255, -1, -1).astype("u1").view("<u2").tolist())
    image = show([[0, 100], [200, 254]], VOILUTSequence=[packed])
    np.testing.assert_allclose(image.pixels * 255, [[255, 155], [55, 1]], atol=1e-4)
    signed = lut_item([0, 1, 2, 3])
    signed.add_new("LUTData", "SS", [0, 16384, -32768, -1])
    image = show([[0, 1], [2, 3]], VOILUTSequence=[signed])
    np.testing.assert_allclose(image.pixels * 65535, [[0, 16384], [32768, 65535]], atol=1e-2)


@pytest.mark.parametrize("first", [-2048, 63488])
@pytest.mark.parametrize("lowest", [-2048, 0])
def test_a_first_entry_whose_sign_is_written_wrongly(first, lowest):
    # Signed values, none of them negative, are signed all the same.
    item = lut_item(np.arange(4096))
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [4096, first, 16])
    stored = np.array([[lowest, 5], [100, 2047]])
    dataset = make_dataset(stored, PixelRepresentation=1, ModalityLUTSequence=[item])
    np.testing.assert_array_equal(modality_values(stored, dataset)[0], stored + 2048)


def test_a_cut_table_is_passed_over_and_said():
    dataset = make_dataset(gradient())
    item = lut_item(np.arange(4096))
    item.LUTData = list(range(100))
    dataset.VOILUTSequence = [item]
    assert "100 entries where 4096 are promised" in read_dicom(dataset).steps[-1]


def test_modality_table_equals_pydicom():
    dataset = make_dataset(gradient(top=2000))
    dataset.ModalityLUTSequence = [lut_item(np.arange(1500)[::-1] * 2, first=200)]
    stored = stored_values(dataset)
    values, step = modality_values(stored, dataset)
    np.testing.assert_array_equal(values, apply_modality_lut(stored, dataset))
    assert step == "modality table of 16 bits"


def test_modality_table_with_a_negative_first_entry():
    dataset = make_dataset(LEVELS - 2048, PixelRepresentation=1)
    dataset.ModalityLUTSequence = [lut_item(np.arange(4096), first=63488)]  # -2048 as unsigned
    values, _ = modality_values(stored_values(dataset), dataset)
    np.testing.assert_array_equal(values, LEVELS)


@pytest.mark.parametrize("slope", [0, float("nan"), float("inf")])
def test_a_slope_that_gives_no_picture(slope):
    dataset = make_dataset(LEVELS)
    dataset.RescaleSlope, dataset.RescaleIntercept = str(slope), "0"
    with pytest.raises(DicomError, match="Rescale Slope"):
        read_dicom(dataset)


def test_the_steps_one_by_one_equal_the_whole():
    dataset = make_dataset(
        gradient(), RescaleSlope=2, RescaleIntercept=-10, WindowCenter=4000, WindowWidth=5000
    )
    values, _ = modality_values(stored_values(dataset), dataset)
    shown, kind, _, _ = display_values(values, dataset)
    np.testing.assert_allclose(read_dicom(dataset).pixels, shown, atol=1e-6)
    assert kind == "window"


# --- padding --------------------------------------------------------------------------------------


def test_padding_is_black_and_does_not_count():
    stored = gradient(40, 40, top=1000) + 1000
    plain = show(stored)
    padded = np.pad(stored, 10, constant_values=63)
    image = show(padded, PixelPaddingValue=63)
    np.testing.assert_allclose(image.pixels[10:-10, 10:-10], plain.pixels, atol=1e-6)
    assert (image.pixels[:10] == 0).all()
    assert image.padding == pytest.approx(1 - 1600 / 3600)
    assert "padding masked: 55.6% of the pixels" in image.steps
    inverted = show(padded, PixelPaddingValue=63, PhotometricInterpretation="MONOCHROME1")
    assert (inverted.pixels[:10] == 0).all()


@pytest.mark.parametrize(
    ("stored", "written", "elements"),
    [
        (-2000, (-2000,), {"PixelRepresentation": 1}),
        (-1990, (-2000, -1990), {"PixelRepresentation": 1}),  # a range
        (-2000, (63536,), {"PixelRepresentation": 1}),  # signed, written as unsigned
        (-100, (156,), {"BitsAllocated": 8, "PixelRepresentation": 1}),
        (-100, (65436,), {"BitsAllocated": 8, "PixelRepresentation": 1}),
        (65535, (-1,), {"BitsStored": 16, "HighBit": 15}),
    ],
)
def test_padding_with_its_range_and_with_the_other_sign(stored, written, elements):
    dataset = make_dataset(np.array([[stored, 1], [2, 3]]), **elements)
    for keyword, value in zip(
        ("PixelPaddingValue", "PixelPaddingRangeLimit"), written, strict=False
    ):
        dataset.add_new(keyword, "US" if value >= 0 else "SS", value)
    image = read_dicom(dataset)
    assert image.padding == 0.25 and image.pixels[0, 0] == 0


# --- shape of pixels ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "spacing", "aspect"),
    [
        ({"PixelSpacing": [0.14, 0.14]}, (0.14, 0.14), 1),
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), 2),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2), 0.5),
        ({"PixelAspectRatio": [2, 1]}, None, 2),
        ({}, None, 1),
    ],
)
def test_pixels_that_are_not_square_are_told(elements, spacing, aspect):
    image = show(gradient(), **elements)
    assert image.pixels.shape == (36, 40)
    assert image.spacing_mm == spacing and image.pixel_aspect == aspect
    told = f"pixels {aspect:.3g} times as high as wide"
    assert (image.steps[-1] == told) == (aspect != 1)


# --- color and other kinds ------------------------------------------------------------------------


def test_color_becomes_luma_and_gray_in_rgb_keeps_its_grays():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]])
    primaries = show(rgb, BitsAllocated=8).pixels
    np.testing.assert_allclose(primaries, [[0.299, 0.587, 0.114, 1]], atol=1e-6)
    gray = gradient(top=255)
    image = show(np.stack([gray] * 3, axis=-1), BitsAllocated=8)
    np.testing.assert_allclose(image.pixels, gray / 255, atol=1e-6)
    assert image.voi == "color" and image.photometric == "RGB"


@pytest.mark.parametrize("top", [255, 65535])
def test_a_palette_of_16_bits_is_scaled_by_what_it_holds(top):
    stored = np.arange(256).reshape(16, 16)
    dataset = make_dataset(stored, BitsAllocated=8, PhotometricInterpretation="PALETTE COLOR")
    entries = (np.arange(256) * (top // 255)).astype("<u2").tobytes()
    for color in ("Red", "Green", "Blue"):
        setattr(dataset, f"{color}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{color}PaletteColorLookupTableData", entries)
    image = read_dicom(dataset)
    np.testing.assert_allclose(image.pixels, stored / 255, atol=1e-6)
    assert ("palette of 8 bits" in image.steps[0]) == (top == 255)


def test_rgb_by_planes():
    rgb = np.stack([gradient(top=255), gradient(top=200), gradient(top=100)], axis=-1)
    planes = make_dataset(rgb, BitsAllocated=8)
    planes.PixelData = np.moveaxis(rgb, -1, 0).astype(np.uint8).tobytes()
    planes.PlanarConfiguration = 1
    np.testing.assert_array_equal(stored_values(planes), rgb)


def test_several_frames_and_floating_point_pixels_are_refused():
    several, floating = make_dataset(gradient()), make_dataset(gradient())
    several.NumberOfFrames = 3
    several.PixelData *= 3
    with pytest.raises(DicomError, match="holds 3 frames; a radiograph has one"):
        read_dicom(several)
    del floating.PixelData
    floating.FloatPixelData = gradient().astype(np.float32).tobytes()
    with pytest.raises(DicomError, match="floating point"):
        read_dicom(floating)


def test_no_pixel_data_says_what_the_file_is():
    with pytest.raises(DicomError, match="no Pixel Data .it is of RT Plan Storage.; leave it out"):
        read_dicom(get_testdata_file("rtplan.dcm"))


@pytest.mark.parametrize("short", [1, 2, 100])
def test_short_pixel_data(short):
    dataset = make_dataset(gradient())
    dataset.PixelData = dataset.PixelData[: -2 * short]
    with pytest.raises(DicomError, match=f"{2880 - 2 * short} bytes of pixels, expected 2880"):
        read_dicom(dataset)


def test_long_pixel_data_is_read():
    dataset = make_dataset(gradient())
    dataset.PixelData += b"\0" * 10
    np.testing.assert_array_equal(stored_values(dataset), gradient())
    assert "10 bytes beyond the picture left out" in read_dicom(dataset).steps[0]


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"index": 0.5}, "index must be a whole number, not 0.5"),
        ({"index": "0"}, "index must be a whole number"),
        ({"percentiles": 5}, "percentiles must be two numbers"),
        ({"percentiles": (1, 2, 3)}, "percentiles must be two numbers"),
        ({"percentiles": (99, 1)}, "percentiles must rise"),
        ({"percentiles": (float("nan"), 99)}, "percentiles must rise"),
        ({"voi": ["auto"]}, "voi must be"),
        ({"max_pixels": "many"}, "max_pixels must be a whole number"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(options, word):
    with pytest.raises(DicomError, match=word):
        read_dicom(make_dataset(gradient(), WindowCenter=9, WindowWidth=9), **options)


def test_numbers_of_numpy_and_values_of_torch():
    torch = pytest.importorskip("torch")
    dataset = make_dataset(LEVELS, WindowCenter=2048, WindowWidth=4096, RescaleSlope=2)
    assert read_dicom(dataset, index=np.int64(0), percentiles=np.array([1, 99])).voi == "window"
    values, _ = modality_values(torch.tensor(LEVELS), dataset)
    np.testing.assert_array_equal(values, 2 * LEVELS)
    shown, _, _, _ = display_values(torch.tensor(LEVELS), dataset)
    np.testing.assert_array_equal(shown, display_values(LEVELS.tolist(), dataset)[0])


@pytest.mark.parametrize("values", [[], [np.nan, 1], ["a"], [True, False]])
def test_values_that_are_none(values):
    with pytest.raises(DicomError, match="expected finite numbers"):
        modality_values(values, Dataset())
    with pytest.raises(DicomError, match="expected finite numbers"):
        display_values(values, Dataset())
    with pytest.raises(DicomError, match="expected a pydicom Dataset, not str"):
        display_values(LEVELS, "a.dcm")


def test_what_cannot_be_opened_is_not_called_damaged_nor_empty():
    closed, file = io.BytesIO(b"abc"), io.BytesIO(to_bytes(make_dataset(gradient())))
    closed.close()
    read_dicom(file)
    broken = make_dataset(gradient())
    broken["PixelData"]._value = gradient()
    for source, words in (
        (closed, "cannot be read"),
        ("a\0.dcm", "cannot be read"),
        (file, r"at its end; go back with seek\(0\)"),
        (io.StringIO("abc"), "mode 'rb'"),
        (gradient(), "not ndarray"),
        (broken, "Pixel Data are of type ndarray, expected bytes"),
    ):
        with pytest.raises(DicomError, match=words):
            read_dicom(source)


@pytest.mark.parametrize("counts", [np.zeros((2, 2), int), np.ones(3, int)])
def test_counts_that_do_not_fit(counts):
    with pytest.raises(DicomError, match="counts must be one number for each value"):
        display_values(LEVELS, Dataset(), counts=lambda: counts)


# --- pydicom's own files --------------------------------------------------------------------------

REFUSED = {
    "JPEG-lossy.dcm": "no decoder at hand can read .* install another decoder",
    "JPEG2000-embedded-sequence-delimiter.dcm": "the header says 1024 x 256",
    "MR_truncated.dcm": "8130 bytes of pixels, expected 8192",
    "SC_rgb_rle_2frame.dcm": "holds 2 frames",
    "badVR.dcm": "NumberOfFrames is '1A'",
    "examples_ybr_color.dcm": "holds 30 frames",
    "no_meta.dcm": "no DICOM file",
    "priv_SQ.dcm": "no DICOM file",
    "reportsi.dcm": "Basic Text SR Storage",
    "rtdose.dcm": "holds 15 frames",
    "rtplan_truncated.dcm": "no Pixel Data",
    "waveform_ecg.dcm": "12-lead ECG",
}


def bundled(name: str) -> Path:
    """Return the path of a file inside the installed pydicom; nothing is downloaded."""
    return Path(get_testdata_file("CT_small.dcm")).parent / name


@pytest.mark.parametrize("name", ["MR_small.dcm", "693_J2KI.dcm", "examples_overlay.dcm"])
def test_bundled_file_windowed_as_by_pydicom(name):
    dataset = pydicom.dcmread(bundled(name))
    reference = apply_windowing(apply_modality_lut(pixel_array(dataset), dataset), dataset)
    pixels = read_dicom(bundled(name)).pixels
    shown = pixels > 0  # where padding is masked, pydicom shows what the window makes of it
    scaled = np.polyfit(reference[shown], pixels[shown], 1)
    np.testing.assert_allclose(np.polyval(scaled, reference[shown]), pixels[shown], atol=1e-5)


def test_bundled_color_files_of_one_picture_agree():
    reference = read_dicom(bundled("SC_rgb_rle.dcm")).pixels
    for name in ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"):
        np.testing.assert_allclose(read_dicom(bundled(name)).pixels, reference, atol=1e-5)
    for name in ("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm"):
        assert np.abs(read_dicom(bundled(name)).pixels - reference).mean() < 0.02


@pytest.mark.parametrize("name", REFUSED)
def test_bundled_file_without_a_radiograph(name):
    with pytest.raises(DicomError, match=REFUSED[name]) as caught:
        read_dicom(bundled(name))
    assert name in str(caught.value)


SCATTERED = sorted(p for p in bundled("").rglob("*") if p.is_file())


def test_every_file_that_pydicom_brings_gives_its_picture_or_a_reason():
    pictures = 0
    for path in SCATTERED:
        try:
            image = read_dicom(path)
        except DicomError as error:
            assert str(error).startswith(f"{path}: "), path
            continue
        pictures += 1
        expected = pixel_array(pydicom.dcmread(path, force=True))
        assert image.pixels.shape == expected.shape[:2], path
        assert 0 <= image.pixels.min() < image.pixels.max() <= 1, path
        if image.photometric != "PALETTE COLOR":  # pydicom gives the indices
            np.testing.assert_array_equal(stored_values(load_dataset(path)), expected)
            assert (image.voi == "color") == (expected.ndim == 3), path
    assert pictures >= 75
