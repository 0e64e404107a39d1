"""dicom.py: hand-sized values, parity with pydicom, and one picture through every syntax."""

import copy
import io
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import gradient, lut_item, make_dataset, to_bytes, with_element, without_meta
from encoders import CASES, ENCODERS, STORED, Encoder, file_name, picture
from encoders import encode as encode_by_tool
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import (
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    get_decoder,
    pixel_array,
)

from cxr_helpers.data import dicom_decoding
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


def test_one_pixel_is_no_picture():
    with pytest.raises(DicomError, match="every pixel has the value 7"):
        show([[7]])


def test_constant_image_is_no_picture():
    with pytest.raises(DicomError, match="every pixel has the value 0"):
        show(np.zeros((4, 4), int))


def test_one_row():
    assert show([[0, 5, 10]]).pixels.tolist() == [[0, 0.5, 1]]


# --- by hand --------------------------------------------------------------------------------------


def test_linear_window_by_hand():
    # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5)
    image = show(LEVELS, WindowCenter=2048, WindowWidth=4096)
    expected = (LEVELS - 2047.5) / 4095 + 0.5
    np.testing.assert_allclose(image.pixels, expected, atol=1e-7)
    assert image.voi == "window" and image.window == (2048, 4096)
    assert image.steps[-1] == "window 1 of 1: center 2048, width 4096, LINEAR"


def test_window_clips_below_and_above():
    image = show(LEVELS, WindowCenter=1000, WindowWidth=100)
    assert image.pixels.tolist() == [
        [0, pytest.approx((1000 - 999.5) / 99 + 0.5)],
        [1, 1],
    ]


def test_linear_exact_window_by_hand():
    # PS3.3 C.11.2.1.3.2: (x - c) / w + 0.5
    image = show(LEVELS, WindowCenter=2000, WindowWidth=4000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(image.pixels, np.clip((LEVELS - 2000) / 4000 + 0.5, 0, 1), atol=1e-7)


def test_sigmoid_window_by_hand():
    # PS3.3 C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w))
    image = show(LEVELS, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    expected = 1 / (1 + np.exp(-4 * (LEVELS - 2000) / 1000))
    np.testing.assert_allclose(image.pixels, expected, atol=1e-7)


def test_steep_sigmoid_does_not_overflow():
    image = show(LEVELS, WindowCenter=2000, WindowWidth=1e-3, VOILUTFunction="SIGMOID")
    assert image.pixels.tolist() == [[0, 0], [1, 1]]


def test_window_is_in_modality_units():
    plain = show(LEVELS, WindowCenter=2048, WindowWidth=4096)
    shifted = show(
        LEVELS, WindowCenter=1048, WindowWidth=4096, RescaleSlope=1, RescaleIntercept=-1000
    )
    np.testing.assert_allclose(shifted.pixels, plain.pixels, atol=1e-7)


def test_negative_slope_turns_the_picture_over():
    turned = show(
        LEVELS, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096
    )
    straight = show(LEVELS, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(turned.pixels, 1 - straight.pixels, atol=1e-6)


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


def test_half_a_window_is_no_window():
    assert show(gradient(), WindowCenter=100).voi == "percentiles"


@pytest.mark.parametrize("voi", ["lut", "window"])
def test_a_named_choice_that_is_missing_is_an_error(voi):
    with pytest.raises(DicomError, match=f"no VOI {voi}"):
        read_dicom(make_dataset(gradient()), voi=voi)


def test_an_unknown_choice_is_an_error():
    with pytest.raises(DicomError, match="voi must be"):
        read_dicom(make_dataset(gradient()), voi="best")


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_voi_table_equals_pydicom(vr):
    entries = (np.linspace(0, 1, 3000) ** 2 * 65535).astype(int)
    dataset = make_dataset(gradient())
    dataset.VOILUTSequence = [lut_item(entries, first=500, vr=vr)]
    expected = apply_voi(pixel_array(dataset), dataset) / 65535
    np.testing.assert_allclose(read_dicom(dataset).pixels, expected, atol=1e-7)


def test_voi_table_of_8_bits_with_4096_entries():
    # pydicom keeps the index in 8 bits here, so 256 would show as 0.
    dataset = make_dataset(LEVELS)
    dataset.VOILUTSequence = [lut_item(np.arange(4096) // 16, bits=8)]
    np.testing.assert_allclose(read_dicom(dataset).pixels, LEVELS // 16 / 255, atol=1e-7)


def test_voi_table_of_8_bits_packed_in_bytes():
    dataset = make_dataset(np.array([[0, 100], [200, 255]]))
    item = lut_item(np.arange(256), bits=8)
    item.add_new("LUTData", "OW", bytes(range(255, -1, -1)))
    dataset.VOILUTSequence = [item]
    np.testing.assert_allclose(read_dicom(dataset).pixels * 255, [[255, 155], [55, 0]], atol=1e-4)


def test_voi_table_in_big_endian_words():
    dataset = make_dataset(LEVELS, syntax=uid.ExplicitVRBigEndian)
    item = lut_item(np.arange(4096) * 16)
    item.add_new("LUTData", "OW", (np.arange(4096) * 16).astype(">u2").tobytes())
    dataset.VOILUTSequence = [item]
    image = read_dicom(to_bytes(dataset))
    np.testing.assert_allclose(image.pixels, LEVELS * 16 / 65535, atol=1e-7)


def test_a_table_with_more_bits_than_it_says_is_scaled_by_what_it_holds():
    dataset = make_dataset(LEVELS)
    dataset.VOILUTSequence = [lut_item(np.arange(4096), bits=8)]
    image = read_dicom(dataset)
    np.testing.assert_allclose(image.pixels, LEVELS / 4095, atol=1e-7)
    assert "12 bits" in image.steps[-1]


@pytest.mark.parametrize("bits", [12, 16])
def test_a_table_with_fewer_bits_than_it_says_is_scaled_by_what_it_holds(bits):
    dataset = make_dataset(LEVELS, VOILUTSequence=[lut_item(np.arange(4096), bits=bits)])
    image = read_dicom(dataset)
    np.testing.assert_allclose(image.pixels, LEVELS / 4095, atol=1e-7)
    assert ("its descriptor says 16" in image.steps[-1]) == (bits == 16)


def test_a_table_of_65536_entries_says_0():
    item = lut_item(np.arange(65536))
    assert item.LUTDescriptor[0] == 0
    image = show(LEVELS * 16, BitsStored=16, HighBit=15, VOILUTSequence=[item])
    np.testing.assert_allclose(image.pixels, LEVELS * 16 / 65535, atol=1e-7)


@pytest.mark.parametrize("entries", [255, 256])
@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_table_of_8_bits_packed_two_to_a_word(entries, vr):
    table = np.arange(entries)[::-1]
    packed = table.astype(np.uint8).tobytes() + b"\0" * (entries % 2)
    item = lut_item(table, bits=8)
    words = np.frombuffer(packed, "<u2").tolist()
    item.add_new("LUTData", vr, packed if vr == "OW" else words)
    image = show([[0, 100], [200, 254]], BitsAllocated=8, VOILUTSequence=[item])
    np.testing.assert_allclose(image.pixels * 255, table[[[0, 100], [200, 254]]], atol=1e-4)


@pytest.mark.parametrize("first", [-2048, 63488])
@pytest.mark.parametrize("lowest", [-2048, 0])
def test_a_first_entry_whose_sign_is_written_wrongly(first, lowest):
    # Signed values, none of them negative, are signed all the same.
    item = lut_item(np.arange(4096))
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [4096, first, 16])
    stored = np.array([[lowest, 5], [100, 2047]])
    dataset = make_dataset(stored, PixelRepresentation=1, ModalityLUTSequence=[item])
    np.testing.assert_array_equal(modality_values(stored, dataset)[0], stored + 2048)


def test_entries_written_as_signed_are_unsigned():
    item = lut_item([0, 1, 2, 3])
    item.add_new("LUTData", "SS", [0, 16384, -32768, -1])
    image = show([[0, 1], [2, 3]], VOILUTSequence=[item])
    np.testing.assert_allclose(image.pixels * 65535, [[0, 16384], [32768, 65535]], atol=1e-2)


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


# --- bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("signed", [0, 1])
def test_bits_stored(bits, signed):
    stored = gradient(top=2**bits - 1) - signed * 2 ** (bits - 1)
    dataset = make_dataset(stored, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed)
    np.testing.assert_array_equal(stored_values(load_dataset(to_bytes(dataset))), stored)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(("bits", "high"), [(12, 15), (10, 12), (8, 15)])
def test_high_bit_and_junk_in_the_unused_bits(bits, high, signed, syntax):
    stored = gradient(top=2**bits - 1) - signed * 2 ** (bits - 1)
    shift = high + 1 - bits
    cells = (stored & (2**bits - 1)) << shift
    cells |= np.arange(cells.size).reshape(cells.shape) % (1 << shift)  # junk below
    cells |= (np.arange(cells.size).reshape(cells.shape) % 7 << (high + 1)) & 0xFFFF  # and above
    dataset = make_dataset(cells.astype(np.uint16).view(np.int16 if signed else np.uint16))
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = 15
    if syntax == uid.RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, high, signed
    np.testing.assert_array_equal(stored_values(dataset), stored)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(
    "syntax",
    [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless],
    ids=lambda s: s.keyword,
)
def test_an_overlay_above_bits_stored_is_no_part_of_the_pixel(syntax, signed):
    stored = gradient() - 2048 * signed
    cells = (stored & 0xFFF).astype(np.uint16)
    cells[:3, :5] |= 1 << 12
    dataset = make_dataset(cells.view(np.int16 if signed else np.uint16), BitsStored=16, HighBit=15)
    dataset.PixelRepresentation = signed
    if syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 12, 11
    np.testing.assert_array_equal(stored_values(dataset), stored)
    assert "bits above the 12 Bits Stored left out of 15 pixels" in read_dicom(dataset).steps[0]


@pytest.mark.parametrize("allocated", [8, 32])
def test_an_overlay_in_cells_of_8_and_32_bits(allocated):
    stored = gradient(top=63)
    dataset = make_dataset(stored | (stored > 30) << 6, BitsAllocated=allocated, BitsStored=6)
    np.testing.assert_array_equal(stored_values(dataset), stored)


def test_what_a_loss_carried_beyond_bits_stored_does_not_turn_black():
    dataset = make_dataset(gradient(top=4100), BitsStored=16, HighBit=15)
    dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000  # may be lossy
    dataset.BitsStored, dataset.HighBit = 12, 11
    assert stored_values(dataset).max() == 4100
    assert "1 pixels are above the 12 Bits Stored, kept" in read_dicom(dataset).steps[0]


def test_eight_bits_allocated():
    stored = gradient(top=255)
    image = show(stored, BitsAllocated=8)
    assert image.bits_stored == 8 and image.pixels.max() == 1


def test_odd_number_of_bytes():
    stored = gradient(3, 5, top=255)
    np.testing.assert_array_equal(stored_values(make_dataset(stored, BitsAllocated=8)), stored)


@pytest.mark.parametrize(
    ("stored", "high", "allocated"), [(13, 11, 16), (12, 16, 16), (0, 0, 16), (12, 11, 64)]
)
def test_contradicting_bits(stored, high, allocated):
    dataset = make_dataset(gradient())
    dataset.BitsStored, dataset.HighBit, dataset.BitsAllocated = stored, high, allocated
    with pytest.raises(DicomError, match="contradict"):
        read_dicom(dataset)


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


def test_padding_is_black_in_monochrome1_too():
    padded = np.pad(gradient(), 4, constant_values=4000)
    image = show(padded, PixelPaddingValue=4000, PhotometricInterpretation="MONOCHROME1")
    assert (image.pixels[:4] == 0).all()


def test_padding_range():
    stored = np.array([[-2000, -1999, -1990, 0], [10, 20, 30, 40]])
    image = show(
        stored, PixelRepresentation=1, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990
    )
    assert image.padding == 3 / 8 and image.pixels[0].tolist() == [0, 0, 0, 0]


def test_signed_padding_written_as_unsigned():
    stored = np.array([[-2000, 0], [10, 20]])
    dataset = make_dataset(stored, PixelRepresentation=1)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    assert read_dicom(dataset).padding == 0.25


def test_nothing_but_padding():
    with pytest.raises(DicomError, match="every pixel is padding"):
        show(np.full((3, 3), 5), PixelPaddingValue=5)


# --- shape of pixels ------------------------------------------------------------------------------


def test_square_pixels():
    image = show(gradient(), PixelSpacing=[0.14, 0.14])
    assert image.spacing_mm == (0.14, 0.14) and image.pixel_aspect == 1


@pytest.mark.parametrize(
    ("elements", "shape", "scale"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (72, 40), (1, 2)),
        ({"ImagerPixelSpacing": [0.1, 0.15]}, (36, 60), (1.5, 1)),
        ({"PixelAspectRatio": [2, 1]}, (72, 40), (1, 2)),
    ],
)
def test_pixels_that_are_not_square(elements, shape, scale):
    dataset = make_dataset(gradient(), **elements)
    kept = read_dicom(dataset)
    assert kept.pixels.shape == (36, 40) and kept.scale_xy == (1, 1)
    assert "times as high as wide" in kept.steps[-1]
    squared = read_dicom(dataset, square_pixels=True)
    assert squared.pixels.shape == shape and squared.scale_xy == scale
    if squared.spacing_mm:  # that of the squares
        assert squared.spacing_mm == pytest.approx((min(kept.spacing_mm),) * 2)
    assert squared.pixels.mean() == pytest.approx(kept.pixels.mean(), abs=0.01)


def test_resampling_keeps_a_ramp_a_ramp():
    dataset = make_dataset(np.repeat(np.arange(10)[:, None], 4, 1), PixelSpacing=[3, 1])
    column = read_dicom(dataset, square_pixels=True, percentiles=(0, 100)).pixels[:, 0]
    np.testing.assert_allclose(np.diff(column[1:-1]), 1 / 27, atol=1e-6)


# --- color and other kinds ------------------------------------------------------------------------


def test_a_gray_secondary_capture_in_rgb_keeps_its_grays():
    gray = gradient(top=255)
    image = show(np.stack([gray] * 3, axis=-1), BitsAllocated=8)
    np.testing.assert_allclose(image.pixels, gray / 255, atol=1e-6)
    assert image.voi == "color" and image.photometric == "RGB"


def test_luma_of_the_primaries():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]])
    image = show(rgb, BitsAllocated=8)
    np.testing.assert_allclose(image.pixels, [[0.299, 0.587, 0.114, 1]], atol=1e-6)


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


def test_several_frames_are_refused():
    dataset = make_dataset(gradient())
    dataset.NumberOfFrames = 3
    dataset.PixelData *= 3
    with pytest.raises(DicomError, match="holds 3 frames; a radiograph has one"):
        read_dicom(dataset)


def test_floating_point_pixels_are_refused():
    dataset = make_dataset(gradient())
    del dataset.PixelData
    dataset.FloatPixelData = gradient().astype(np.float32).tobytes()
    with pytest.raises(DicomError, match="floating point"):
        read_dicom(dataset)


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


def test_the_result():
    image = show(gradient())
    assert image.pixels.dtype == np.float32 and image.pixels.flags.owndata
    assert (image.pixels.min(), image.pixels.max()) == (0, 1)
    assert image.transfer_syntax == "Explicit VR Little Endian"


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


@pytest.mark.parametrize(
    ("stored", "written", "elements"),
    [
        (-100, 156, {"BitsAllocated": 8, "PixelRepresentation": 1}),
        (-100, 65436, {"BitsAllocated": 8, "PixelRepresentation": 1}),
        (65535, -1, {"BitsStored": 16, "HighBit": 15}),
    ],
)
def test_padding_written_with_the_other_sign(stored, written, elements):
    dataset = make_dataset(np.array([[stored, 1], [2, 3]]), **elements)
    dataset.add_new("PixelPaddingValue", "US" if written >= 0 else "SS", written)
    assert read_dicom(dataset).padding == 0.25


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


def test_what_cannot_be_opened_is_not_called_damaged():
    closed = io.BytesIO(b"abc")
    closed.close()
    for source in (closed, "a\0.dcm"):
        with pytest.raises(DicomError, match="cannot be read"):
            read_dicom(source)
    dataset = make_dataset(gradient())
    dataset["PixelData"]._value = gradient()
    with pytest.raises(DicomError, match="Pixel Data are of type ndarray, expected bytes"):
        read_dicom(dataset)


@pytest.mark.parametrize("counts", [np.zeros((2, 2), int), np.ones(3, int)])
def test_counts_that_do_not_fit(counts):
    with pytest.raises(DicomError, match="counts must be one number for each value"):
        display_values(LEVELS, Dataset(), counts=lambda: counts)


def test_an_open_file_at_its_end_is_not_called_empty():
    file = io.BytesIO(to_bytes(make_dataset(gradient())))
    read_dicom(file)
    with pytest.raises(DicomError, match=r"at its end; go back with seek\(0\)"):
        read_dicom(file)
    with pytest.raises(DicomError, match="mode 'rb'"):
        read_dicom(io.StringIO("abc"))
    with pytest.raises(DicomError, match="not ndarray"):
        read_dicom(gradient())


# --- one picture, every transfer syntax -----------------------------------------------------------

NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
]
PYDICOM_ENCODERS = [uid.RLELossless, uid.JPEG2000Lossless]


def encode(stored, syntax, **elements):
    """Return a file's bytes in a syntax that pydicom can write."""
    if syntax in NATIVE:
        return to_bytes(make_dataset(stored, syntax=syntax, **elements))
    dataset = make_dataset(stored, **elements)
    dataset.compress(syntax, generate_instance_uid=False)
    return to_bytes(dataset)


@pytest.mark.parametrize("signed", [0, 1], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", NATIVE + PYDICOM_ENCODERS, ids=lambda s: s.keyword)
def test_same_picture_through_every_syntax(syntax, signed):
    stored = gradient() - 2048 * signed
    dataset = load_dataset(encode(stored, syntax, PixelRepresentation=signed))
    np.testing.assert_array_equal(stored_values(dataset), stored)
    assert read_dicom(dataset).transfer_syntax == syntax.name


@pytest.mark.parametrize(
    "syntax",
    [s for s in NATIVE if s != uid.DeflatedExplicitVRLittleEndian] + PYDICOM_ENCODERS,
    ids=lambda s: s.keyword,
)
def test_missing_transfer_syntax_is_found_in_the_data(syntax):
    data = without_meta(encode(gradient(), syntax))
    image = read_dicom(data)
    np.testing.assert_array_equal(stored_values(load_dataset(data)), gradient())
    assert "(the header says nothing)" in image.steps[0]


@pytest.mark.parametrize("syntax", PYDICOM_ENCODERS, ids=lambda s: s.keyword)
@pytest.mark.parametrize("declared", [uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit])
def test_wrong_transfer_syntax_is_overruled_by_the_data(syntax, declared):
    dataset = load_dataset(encode(gradient(), syntax))
    dataset.file_meta.TransferSyntaxUID = declared
    np.testing.assert_array_equal(stored_values(dataset), gradient())
    assert f"the header says {declared.name}" in read_dicom(dataset).steps[0]


def test_compression_declared_but_not_used():
    dataset = make_dataset(gradient())
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    dataset.set_original_encoding(False, True)
    np.testing.assert_array_equal(stored_values(dataset), gradient())


@pytest.mark.parametrize(
    "name",
    [
        "JPGExtended.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
    ],
)
def test_bundled_file_without_its_transfer_syntax(name):
    data = bundled(name).read_bytes()
    np.testing.assert_array_equal(read_dicom(without_meta(data)).pixels, read_dicom(data).pixels)


@pytest.mark.parametrize("syntax", PYDICOM_ENCODERS, ids=lambda s: s.keyword)
def test_several_fragments_of_one_frame(syntax):
    dataset = load_dataset(encode(gradient(), syntax))
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = pydicom.encaps.encapsulate([frame], fragments_per_frame=3)
    dataset["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(stored_values(load_dataset(to_bytes(dataset))), gradient())


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_baseline_is_off_by_the_loss_alone(quality):
    stored = picture(8, signed=False)
    stream = io.BytesIO()
    Image.fromarray(stored.astype(np.uint8)).save(stream, "JPEG", quality=quality)
    dataset = make_dataset(stored, BitsAllocated=8, syntax=uid.JPEGBaseline8Bit)
    dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    decoded = stored_values(load_dataset(to_bytes(dataset)))
    with Image.open(stream) as reference:
        np.testing.assert_allclose(decoded, np.asarray(reference), atol=1)  # two decoders round
    assert np.abs(decoded - stored).max() <= {75: 12, 95: 4}[quality]


def assert_same_picture(path: Path, encoder: Encoder, stored: np.ndarray) -> None:
    values = stored_values(load_dataset(path))
    assert values.shape == stored.shape
    assert np.abs(values - stored).max() / 2 ** (encoder.bits - 8) <= encoder.tolerance
    image = read_dicom(path)
    assert image.transfer_syntax.startswith(encoder.syntax)
    reference = read_dicom(make_dataset(stored, PixelRepresentation=int(stored.min() < 0)))
    if not encoder.tolerance:
        np.testing.assert_array_equal(image.pixels, reference.pixels)


@pytest.mark.parametrize(("name", "signed"), CASES, ids=[file_name(*case) for case in CASES])
def test_same_picture_from_stored_files_of_other_encoders(name, signed):
    path = STORED / file_name(name, signed)
    assert_same_picture(path, ENCODERS[name], picture(ENCODERS[name].bits, signed))


@pytest.mark.parametrize(("name", "signed"), CASES, ids=[file_name(*case) for case in CASES])
def test_same_picture_from_other_encoders_at_hand(name, signed, tmp_path):
    tool = ENCODERS[name].tool
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: apt-get install dcmtk libgdcm-tools)")
    path = encode_by_tool(name, signed, tmp_path)
    assert_same_picture(path, ENCODERS[name], picture(ENCODERS[name].bits, signed))


COMPRESSED = [case for case in CASES if re.search("rle|jpeg|j2k", case[0])]


@pytest.mark.parametrize("case", COMPRESSED, ids=[file_name(*case) for case in COMPRESSED])
def test_every_compression_is_told_from_the_data(case):
    data = (STORED / file_name(*case)).read_bytes()
    whole = read_dicom(data)
    bare = read_dicom(without_meta(data))
    np.testing.assert_array_equal(bare.pixels, whole.pixels)
    assert "(the header says nothing)" in bare.steps[0]
    lying = load_dataset(data)
    lying.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    np.testing.assert_array_equal(read_dicom(lying).pixels, whole.pixels)


def test_every_stored_file_is_tested():
    assert {path.name for path in STORED.iterdir()} == {file_name(*case) for case in CASES}


def test_deflated_data_without_a_header_are_refused():
    data = to_bytes(make_dataset(gradient(), syntax=uid.DeflatedExplicitVRLittleEndian))
    with pytest.raises(DicomError, match="no DICOM file|no Pixel Data"):
        read_dicom(data[data.index(b"1.2.840.10008.1.2.1.99") + 22 :])


# --- what lies around a compressed picture --------------------------------------------------------


def item(data: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(data)) + data


def even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


AROUND = {
    "no offset table": lambda f: item(f),
    "empty offset table": lambda f: item(b"") + item(f),
    "offset from the file's start": lambda f: item(struct.pack("<L", 1400)) + item(f),
    "many offsets": lambda f: item(struct.pack("<3L", 0, 50, 90)) + item(f),
    "half an offset": lambda f: item(b"ab") + item(f),
    "fragments": lambda f: item(b"") + item(f[:100]) + item(f[100:]),
    "fragments without offset table": lambda f: item(f[:100]) + item(f[100:]),
    "an empty fragment": lambda f: item(b"") + item(f) + item(b""),
    "bytes after the end": lambda f: item(b"") + item(f + b"abcd"),
    "zeros after the end": lambda f: item(b"") + item(f + bytes(500)),
    "a length beyond the data": lambda f: item(b"") + item(f)[:4] + b"\xff\xff\xff\xff" + f,
}
FRAMES = {case: (STORED / file_name(*case)).read_bytes() for case in COMPRESSED}


def around(data: bytes, way) -> bytes:
    """Put something else around the compressed picture of a file."""
    dataset = load_dataset(data)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset["PixelData"].value = way(even(frame))
    return to_bytes(dataset)


@pytest.mark.parametrize("way", AROUND)
@pytest.mark.parametrize("case", COMPRESSED, ids=[file_name(*case) for case in COMPRESSED])
def test_one_frame_needs_no_offset_table_and_ends_at_its_end_mark(case, way):
    image = read_dicom(around(FRAMES[case], AROUND[way]))
    np.testing.assert_array_equal(image.pixels, read_dicom(FRAMES[case]).pixels)
    if way == "bytes after the end" and "rle" not in case[0]:
        assert "4 bytes after the compressed picture left out" in image.steps[0]


LOSSLESS = [case for case in COMPRESSED if not ENCODERS[case[0]].tolerance and not case[1]]


@pytest.mark.parametrize("case", LOSSLESS, ids=[file_name(*case) for case in LOSSLESS])
def test_bits_above_bits_stored_go_in_every_lossless_compression(case):
    dataset = load_dataset(FRAMES[case])
    dataset.BitsStored, dataset.HighBit = 10, 9
    np.testing.assert_array_equal(stored_values(dataset), picture(12, signed=False) & 1023)
    assert "bits above the 10 Bits Stored left out" in read_dicom(dataset).steps[0]


@pytest.mark.parametrize("case", COMPRESSED, ids=[file_name(*case) for case in COMPRESSED])
def test_an_extended_offset_table_is_not_looked_at(case):
    dataset = load_dataset(FRAMES[case])
    dataset.add_new("ExtendedOffsetTable", "OV", struct.pack("<Q", 5000))
    np.testing.assert_array_equal(read_dicom(dataset).pixels, read_dicom(FRAMES[case]).pixels)


@pytest.mark.parametrize("case", COMPRESSED, ids=[file_name(*case) for case in COMPRESSED])
def test_a_compressed_file_is_cut_where_the_picture_is_and_only_there(case):
    data = FRAMES[case]
    whole = read_dicom(data).pixels
    end = data.rindex(b"\xfe\xff\xdd\xe0\0\0\0\0")
    image = read_dicom(data[:end])
    np.testing.assert_array_equal(image.pixels, whole)
    assert "the file ends before an end mark" in image.steps[0]
    for gone in (10, 50, 200):
        with pytest.raises(DicomError, match="the compressed pixel data are cut, "):
            read_dicom(data[: end - gone])
        if "rle" not in case[0]:  # to which zeros are zeros
            with pytest.raises(DicomError, match="the compressed picture is cut"):
                read_dicom(data[: end - gone] + bytes(gone) + data[end:])


@pytest.mark.parametrize(
    "name", ["dcmtk-jpeg-sv1", "dcmtk-jpeg-baseline", "dcmtk-jpegls", "gdcm-j2k", "gdcm-j2k-lossy"]
)
def test_a_whole_picture_without_its_end_mark(name):
    data = FRAMES[name, False]
    marks = rb"\xff\xd9\0*$"
    image = read_dicom(around(data, lambda f: item(b"") + item(even(re.sub(marks, b"", f)))))
    np.testing.assert_array_equal(image.pixels, read_dicom(data).pixels)
    assert "the compressed picture has no end mark" in image.steps[0]


def test_an_end_mark_in_a_comment_is_no_end():
    def commented(frame: bytes) -> bytes:  # COM, ISO/IEC 10918-1 B.2.4.5
        return item(b"") + item(frame[:2] + b"\xff\xfe\x00\x06\xff\xd9\xff\xd9" + frame[2:])

    data = FRAMES["dcmtk-jpeg-sv1", False]
    np.testing.assert_array_equal(
        read_dicom(around(data, commented)).pixels, read_dicom(data).pixels
    )


def test_a_stream_with_more_bits_than_allocated_is_refused():
    dataset = load_dataset(FRAMES["gdcm-j2k", False])
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    with pytest.raises(DicomError, match="8 Bits Allocated, the compressed picture has 16"):
        read_dicom(dataset)


def test_eight_bits_of_jpeg_in_cells_of_16():
    dataset = load_dataset(FRAMES["dcmtk-jpeg-baseline", False])
    expected = stored_values(dataset)
    dataset.BitsAllocated = 16
    np.testing.assert_array_equal(stored_values(dataset), expected)


@pytest.mark.parametrize(
    ("syntax", "there", "word"),
    [
        (uid.JPEGLSLossless, {}, r"pip install pyjpegls \(MIT\), or python-gdcm \(BSD\), or "),
        (uid.JPEGLosslessSV1, {"gdcm": 1}, r"pylibjpeg-libjpeg \(GPL-3.0\)$"),
        (uid.HTJ2K, {}, r"pip install pylibjpeg pylibjpeg-openjpeg \(MIT\)$"),
    ],
)
def test_packages_are_advised_with_their_license(monkeypatch, syntax, there, word):
    decoder = get_decoder(syntax)
    monkeypatch.setattr(decoder, "_available", there)
    advice = dicom_decoding._installable(decoder)
    assert re.search(word, f"pip install {advice}") and (
        "gdcm" not in there or "gdcm" not in advice
    )


def test_a_decoder_that_refused_is_not_advised(monkeypatch):
    decoder = get_decoder(uid.JPEGExtended12Bit)
    refuse = {name: decoder._available["pylibjpeg"] for name in ("pylibjpeg", "gdcm")}
    monkeypatch.setattr(decoder, "_available", refuse)
    with pytest.raises(DicomError, match="no decoder at hand can read") as caught:
        read_dicom(bundled("JPEG-lossy.dcm"))
    assert "install" not in str(caught.value)


def test_a_syntax_that_pydicom_cannot_decode_is_not_called_a_film():
    dataset = load_dataset(FRAMES["gdcm-j2k", False])
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x0a" * 40])
    dataset.file_meta.TransferSyntaxUID = uid.UID("1.2.840.10008.1.2.4.92")  # JPEG 2000 Part 2
    with pytest.raises(DicomError, match="is none that pydicom can decode"):
        read_dicom(dataset)


# --- pydicom's own files --------------------------------------------------------------------------

MONOCHROME = [
    "693_J2KI.dcm",
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "examples_overlay.dcm",
    "image_dfl.dcm",
    "liver_1frame.dcm",
    "liver_expb_1frame.dcm",
    "rtdose_1frame.dcm",
    "rtdose_expb_1frame.dcm",
    "rtdose_rle_1frame.dcm",
]
COLOR = [
    "ExplVR_BigEnd.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jpeg_dcmd.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_rle_16bit.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
]
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


@pytest.mark.parametrize("name", MONOCHROME)
def test_bundled_monochrome_file(name):
    dataset = pydicom.dcmread(bundled(name))
    expected = pixel_array(dataset)
    np.testing.assert_array_equal(stored_values(dataset), expected)
    image = read_dicom(bundled(name))
    assert image.pixels.shape == expected.shape
    assert (image.pixels.min() >= 0) and (image.pixels.max() <= 1) and np.ptp(image.pixels) > 0.2


@pytest.mark.parametrize("name", ["MR_small.dcm", "693_J2KI.dcm", "examples_overlay.dcm"])
def test_bundled_file_windowed_as_by_pydicom(name):
    dataset = pydicom.dcmread(bundled(name))
    reference = apply_windowing(apply_modality_lut(pixel_array(dataset), dataset), dataset)
    pixels = read_dicom(bundled(name)).pixels
    shown = pixels > 0  # where padding is masked, pydicom shows what the window makes of it
    scaled = np.polyfit(reference[shown], pixels[shown], 1)
    np.testing.assert_allclose(np.polyval(scaled, reference[shown]), pixels[shown], atol=1e-5)


@pytest.mark.parametrize("name", COLOR)
def test_bundled_color_file(name):
    image = read_dicom(bundled(name))
    assert image.voi == "color" and np.ptp(image.pixels) > 0.2


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
        if image.photometric != "PALETTE COLOR":  # pydicom gives the indices
            np.testing.assert_array_equal(stored_values(load_dataset(path)), expected)
    assert pictures >= 75
