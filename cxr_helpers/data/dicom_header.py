"""The header of a DICOM file: parse it, and read the elements that a picture depends on.

An element that cannot be parsed becomes its error: the caller decides whether it was needed.
Section numbers are those of https://dicom.nema.org/medical/dicom/current.

From cxr-helpers 0.2.0 (MIT license).
Needs: pydicom (>=3).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

Source = str | os.PathLike[str] | bytes | BinaryIO | Dataset
Header = Mapping[str, Any]  # keyword -> value, of the elements in _ELEMENTS
AGAIN = "download or export it again"

_ELEMENTS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
)
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"  # PS3.5 7.5
_ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"


class DicomError(ValueError):
    """A file that gives no picture; the message names the reason and the remedy.

    `read_dicom` and `load_dataset` name the file as well.
    """


class UnreadableError(DicomError):
    """An element that cannot be read; where it is not needed, it is passed over."""


@dataclass(frozen=True)
class Layout:
    """How the pixels are stored (Image Pixel module, PS3.3 C.7.6.3), checked.

    Attributes:
        rows: height in pixels.
        columns: width in pixels.
        samples: values of a pixel.
        photometric: Photometric Interpretation, in capitals.
        planar: Planar Configuration, or None if it is missing or cannot be read.
        allocated: bits of a cell.
        stored: of these, the bits of a value.
        high: number of its top bit, from 0.
        signed: whether values can be negative.
        note: what was passed over, in words.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int | None
    allocated: int
    stored: int
    high: int
    signed: bool
    note: str

    @property
    def n_bytes(self) -> int:
        """Bytes of the picture where it is not compressed."""
        values = self.rows * self.columns * self.samples
        if self.photometric == "YBR_FULL_422":  # two of three, PS3.3 C.7.6.3.1.2
            values = values // 3 * 2
        return (values * self.allocated + 7) // 8


# --- the file -------------------------------------------------------------------------------------


@contextmanager
def named(source: Source) -> Iterator[None]:
    """Name the source in every error, and make a DicomError of it.

    >>> with named("chest.dcm"):
    ...     raise DicomError("holds no picture")
    Traceback (most recent call last):
    cxr_helpers.data.dicom_header.DicomError: chest.dcm: holds no picture
    """
    try:
        yield
    except DicomError as error:
        raise DicomError(f"{_name(source)}: {error}") from error.__cause__
    except Exception as error:  # pydicom and the decoders raise whatever they met
        reason = f"{type(error).__name__}: {short(error)}"
        raise DicomError(
            f"{_name(source)}: not understood ({reason}); if the file is damaged, {AGAIN}"
        ) from error


def _name(source: Source) -> str:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if not isinstance(source, (str, os.PathLike, Dataset)) and not hasattr(source, "read"):
        return short(repr(source))
    if isinstance(source, Dataset):
        return str(getattr(source, "filename", None) or "<dataset>")
    return str(getattr(source, "name", "<stream>") if hasattr(source, "read") else source)


def parsed(source: Source) -> tuple[Dataset, str]:
    """Parse, and say if the end mark of the pixel data is missing.

    >>> from pydicom.data import get_testdata_file
    >>> dataset, note = parsed(get_testdata_file("CT_small.dcm"))
    >>> dataset.Modality, note
    ('CT', '')
    """
    if isinstance(source, Dataset):
        return source, ""
    data, note = _content(source), ""
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    for ends in (_SEQUENCE_END, (_ITEM_END + _SEQUENCE_END) * 8):
        # Without the end mark of a value of undefined length, pydicom drops the whole dataset.
        if "PixelData" not in dataset:
            mended = pydicom.dcmread(io.BytesIO(data + ends), force=True)
            if len(mended) > len(dataset):
                dataset, note = mended, "; the file ends before an end mark"
    if any(tag.group in (0x0004, 0x0008, 0x0028, 0x7FE0) for tag in dataset.keys()):
        return dataset, note
    if data[128:132] == b"DICM":
        raise DicomError(f"no DICOM file beyond its mark 'DICM': no element of an image; {AGAIN}")
    raise DicomError(f"no DICOM file (it begins with {data[:12]!r}); {AGAIN}")


def _content(source: Source) -> bytes:
    """Read path, bytes or open file."""
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
        elif hasattr(source, "read"):
            data = source.read()
        elif isinstance(source, (str, os.PathLike)):
            data = Path(source).read_bytes()
        else:
            kind = type(source).__name__
            raise DicomError(f"expected a path, bytes, an open file or a Dataset, not {kind}")
    except (OSError, ValueError) as error:  # ValueError: a closed file, a path with a zero in it
        if isinstance(error, DicomError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DicomError(f"cannot be read ({reason}); check the path and its rights") from None
    if isinstance(data, str):
        raise DicomError("the file is open as text; open it with mode 'rb'")
    if data:
        return data
    if hasattr(source, "tell") and source.tell():
        raise DicomError("the open file is at its end; go back with seek(0)")
    raise DicomError(f"the file is empty; {AGAIN}")


# --- the elements ---------------------------------------------------------------------------------


def read_header(dataset: Dataset | Header) -> Header:
    """Read the elements in _ELEMENTS once; one that cannot be parsed becomes its error.

    >>> dataset = Dataset()
    >>> dataset.Rows, dataset.PatientName = 64, "Nobody"
    >>> read_header(dataset)
    {'Rows': 64, 'big endian': False}
    """
    if isinstance(dataset, Mapping):
        return dataset
    if not isinstance(dataset, Dataset):
        raise DicomError(f"expected a pydicom Dataset, not {type(dataset).__name__}")
    header: dict[str, Any] = {}
    for keyword in _ELEMENTS:
        if keyword in dataset:
            try:
                header[keyword] = dataset[keyword].value
            except Exception as error:  # any parser's
                header[keyword] = error
    photometric = header.get("PhotometricInterpretation")
    if isinstance(photometric, str):
        header["PhotometricInterpretation"] = photometric.strip(" \0").upper()
    meta = getattr(dataset, "file_meta", None) or {}
    little = getattr(dataset, "original_encoding", (None, None))[1]
    declared = meta.get("TransferSyntaxUID")
    header["big endian"] = little is False if not declared else declared == uid.ExplicitVRBigEndian
    return header


def read_layout(dataset: Dataset, header: Header, max_pixels: int) -> Layout:
    """Refuse what cannot be one gray radiograph before any memory is spent on it.

    >>> from pydicom.data import get_testdata_file
    >>> dataset, _ = parsed(get_testdata_file("CT_small.dcm"))
    >>> layout = read_layout(dataset, read_header(dataset), max_pixels=10**8)
    >>> layout.rows, layout.columns, layout.stored, layout.signed
    (128, 128, 16, True)
    """
    _check_pixel_data(dataset)
    photometric = header.get("PhotometricInterpretation")
    if not photometric:
        raise DicomError(f"the header lacks PhotometricInterpretation; {AGAIN}")
    if not isinstance(photometric, str):
        raise DicomError(f"PhotometricInterpretation is {short(photometric)}, expected one word")
    frames = whole_number(header, "NumberOfFrames", 1) or 1
    if frames != 1:
        raise DicomError(f"holds {frames} frames; a radiograph has one. Export it as single images")
    stored, note = whole_number(header, "BitsStored"), ""
    try:
        high = whole_number(header, "HighBit", stored - 1)
    except DicomError as error:
        high, note = stored - 1, f"; high bit passed over: {reason_of(error)}"
    try:
        planar = whole_number(header, "PlanarConfiguration")
    except DicomError:
        planar = None
    sign = whole_number(header, "PixelRepresentation")
    if sign not in (0, 1):
        raise DicomError(f"Pixel Representation is {sign}, expected 0 or 1; {AGAIN}")
    layout = Layout(
        rows=whole_number(header, "Rows"),
        columns=whole_number(header, "Columns"),
        samples=whole_number(header, "SamplesPerPixel"),
        photometric=photometric,
        planar=planar,
        allocated=whole_number(header, "BitsAllocated"),
        stored=stored,
        high=high,
        signed=sign == 1,
        note=note,
    )
    if layout.rows < 1 or layout.columns < 1 or layout.rows * layout.columns > max_pixels:
        raise DicomError(
            f"the header says {layout.rows} rows x {layout.columns} columns, expected 1 to "
            f"{max_pixels} pixels in all; pass max_pixels if the image really is that large"
        )
    if not 1 <= stored <= high + 1 <= layout.allocated <= 32:
        raise DicomError(
            f"BitsAllocated {layout.allocated}, BitsStored {stored} and HighBit {high} contradict "
            "each other (PS3.5 8.1.1)"
        )
    return layout


def _check_pixel_data(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise DicomError("pixels are floating point numbers; a radiograph has integers")
        kind = uid.UID(str(dataset.get("SOPClassUID", ""))).name or "unknown kind"
        raise DicomError(f"no Pixel Data (it is of {kind}); leave it out, or, if an image, {AGAIN}")
    if not pixel_data(dataset):
        raise DicomError(f"cut: 0 bytes of pixels; {AGAIN}")


def pixel_data(dataset: Dataset) -> bytes:
    """Return the bytes of Pixel Data, none if it is empty.

    >>> dataset = Dataset()
    >>> dataset.PixelData = b"ab"
    >>> pixel_data(dataset)
    b'ab'
    """
    value = dataset["PixelData"].value
    if hasattr(value, "read"):  # pydicom leaves a buffer where it was given one
        value.seek(0)
        value = value.read()
    if not isinstance(value, (bytes, bytearray, memoryview, type(None))):
        raise DicomError(f"Pixel Data are of type {type(value).__name__}, expected bytes")
    return bytes(value or b"")


def whole_number(header: Header, keyword: str, default: int | None = None) -> int:
    """Return a whole number of the header, or say that it is missing.

    >>> whole_number({"Rows": 64}, "Rows"), whole_number({}, "NumberOfFrames", 1)
    (64, 1)
    """
    values = values_of(header, keyword)
    if not values and default is None:
        raise DicomError(f"the header lacks {keyword}; {AGAIN}")
    if not values:
        return default
    try:
        if len(values) == 1 and int(values[0]) == float(values[0]):
            return int(values[0])
    except (TypeError, ValueError, OverflowError):
        pass
    told = short(repr(header[keyword]))
    raise DicomError(f"{keyword} is {told}, expected one whole number; {AGAIN}")


def values_of(header: Header, keyword: str) -> list[Any]:
    """Return an element's values, none if it is missing or empty.

    >>> values_of({"WindowCenter": [40, 400]}, "WindowCenter"), values_of({}, "WindowWidth")
    ([40, 400], [])
    """
    value = header.get(keyword)
    if isinstance(value, Exception):
        raise UnreadableError(f"{keyword} cannot be parsed ({short(value)})")
    values = list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]
    return [] if all(one is None or one in ("", b"") for one in values) else values


def as_number(value: Any, keyword: str) -> float:
    """Return one value of an element as a number.

    >>> as_number("2.5", "RescaleSlope")
    2.5
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise UnreadableError(f"{keyword} is {short(repr(value))}, not a number") from None


def short(value: object) -> str:
    """Return a value on one line that fits into a message.

    >>> short("one   line")
    'one line'
    """
    return " ".join(str(value).split())[:300]


def reason_of(error: DicomError) -> str:
    """Return the message without its remedy, for what is passed over needs none.

    >>> reason_of(DicomError(f"the file is empty; {AGAIN}"))
    'the file is empty'
    """
    return str(error).removesuffix(f"; {AGAIN}")
