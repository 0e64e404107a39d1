"""dicom_decoding.py: the pixel's bits, and one picture through every transfer syntax."""

import io
import re
import shutil
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import gradient, make_dataset, to_bytes, without_meta
from encoders import CASES, ENCODERS, STORED, Encoder, file_name, picture
from encoders import encode as encode_by_tool
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder

from cxr_helpers.data import dicom_decoding
from cxr_helpers.data.dicom import DicomError, load_dataset, read_dicom, stored_values

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def bundled(name: str) -> Path:
    """Return the path of a file inside the installed pydicom; nothing is downloaded."""
    return Path(get_testdata_file("CT_small.dcm")).parent / name


# 12 bits of JPEG with loss, and JPEG-LS without an end: no other decoder reads these.
needs_gpl = pytest.mark.skipif(
    find_spec("libjpeg") is None, reason="pylibjpeg-libjpeg, the extra gpl, is not installed"
)


def each(cases):
    """Cases to parametrize with, by the names of their files."""
    marks = {"dcmtk-jpeg-extended": [needs_gpl]}
    return [pytest.param(c, id=file_name(*c), marks=marks.get(c[0], [])) for c in cases]


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


def test_eight_bits_allocated_and_an_odd_number_of_bytes():
    stored = gradient(3, 5, top=255)
    image = read_dicom(make_dataset(stored, BitsAllocated=8))
    assert image.bits_stored == 8 and image.pixels.max() == 1
    np.testing.assert_array_equal(stored_values(make_dataset(stored, BitsAllocated=8)), stored)


@pytest.mark.parametrize(
    ("stored", "high", "allocated"), [(13, 11, 16), (12, 16, 16), (0, 0, 16), (12, 11, 64)]
)
def test_contradicting_bits(stored, high, allocated):
    dataset = make_dataset(gradient())
    dataset.BitsStored, dataset.HighBit, dataset.BitsAllocated = stored, high, allocated
    with pytest.raises(DicomError, match="contradict"):
        read_dicom(dataset)


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
        pytest.param("JPGExtended.dcm", marks=needs_gpl),
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


@pytest.mark.parametrize("case", each(CASES))
def test_same_picture_from_stored_files_of_other_encoders(case):
    name, signed = case
    path = STORED / file_name(name, signed)
    assert_same_picture(path, ENCODERS[name], picture(ENCODERS[name].bits, signed))


@pytest.mark.parametrize("case", each(CASES))
def test_same_picture_from_other_encoders_at_hand(case, tmp_path):
    name, signed = case
    tool = ENCODERS[name].tool
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: apt-get install dcmtk libgdcm-tools)")
    path = encode_by_tool(name, signed, tmp_path)
    assert_same_picture(path, ENCODERS[name], picture(ENCODERS[name].bits, signed))


COMPRESSED = [case for case in CASES if re.search("rle|jpeg|j2k", case[0])]


@pytest.mark.parametrize("case", each(COMPRESSED))
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
@pytest.mark.parametrize("case", each(COMPRESSED))
def test_one_frame_needs_no_offset_table_and_ends_at_its_end_mark(case, way):
    image = read_dicom(around(FRAMES[case], AROUND[way]))
    np.testing.assert_array_equal(image.pixels, read_dicom(FRAMES[case]).pixels)
    if way == "bytes after the end" and "rle" not in case[0]:
        assert "4 bytes after the compressed picture left out" in image.steps[0]


LOSSLESS = [case for case in COMPRESSED if not ENCODERS[case[0]].tolerance and not case[1]]


@pytest.mark.parametrize("case", each(LOSSLESS))
def test_bits_above_bits_stored_go_in_every_lossless_compression(case):
    dataset = load_dataset(FRAMES[case])
    dataset.BitsStored, dataset.HighBit = 10, 9
    np.testing.assert_array_equal(stored_values(dataset), picture(12, signed=False) & 1023)
    assert "bits above the 10 Bits Stored left out" in read_dicom(dataset).steps[0]


@pytest.mark.parametrize("case", each(COMPRESSED))
def test_an_extended_offset_table_is_not_looked_at(case):
    dataset = load_dataset(FRAMES[case])
    dataset.add_new("ExtendedOffsetTable", "OV", struct.pack("<Q", 5000))
    np.testing.assert_array_equal(read_dicom(dataset).pixels, read_dicom(FRAMES[case]).pixels)


@pytest.mark.parametrize("case", each(COMPRESSED))
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
    "name",
    [
        *("dcmtk-jpeg-sv1", "dcmtk-jpeg-baseline", "gdcm-j2k", "gdcm-j2k-lossy"),
        pytest.param("dcmtk-jpegls", marks=needs_gpl),
    ],
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
        (uid.JPEGLosslessSV1, {"gdcm": 1}, r"pylibjpeg-libjpeg \(GPL-3.0; .*\[gpl\]\)$"),
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


@pytest.mark.parametrize(
    ("name", "spoil", "word"),
    [
        ("dcmtk-jpeg-extended", lambda f: f, "no decoder at hand can read"),
        ("dcmtk-jpegls", lambda f: re.sub(rb"\xff\xd9\0*$", b"", f), "has no end"),
    ],
)
def test_what_only_the_decoder_under_the_gpl_reads_names_it_and_its_extra(
    monkeypatch, name, spoil, word
):
    data = around(FRAMES[name, False], lambda f: item(b"") + item(even(spoil(f))))
    for syntax in (uid.JPEGExtended12Bit, uid.JPEGLSLossless):
        decoder = get_decoder(syntax)
        others = {k: v for k, v in decoder._available.items() if k != "pylibjpeg"}
        monkeypatch.setattr(decoder, "_available", others or {"gdcm": refuse})
    with pytest.raises(DicomError, match=rf"{word}.*GPL-3\.0.*cxr-helpers\[gpl\]"):
        read_dicom(data)


def refuse(*_):
    raise RuntimeError("not this one")


def test_a_decoder_that_refused_is_not_advised(monkeypatch):
    decoder = get_decoder(uid.JPEGExtended12Bit)
    refuse = dict.fromkeys(("pylibjpeg", "gdcm"), next(iter(decoder._available.values())))
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
