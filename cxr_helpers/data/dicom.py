"""Read a radiograph from a DICOM file: stored values to a gray picture, each step named.

The way of PS3.3 C.11 and PS3.4 N.2: decode, mask the padding, modality transform (rescale or
table), values of interest (table or window), polarity. `read_dicom` goes it all the way and lists
its steps; `load_dataset`, `stored_values`, `modality_values` and `display_values` are the steps.
Where pydicom has a function it is used; the rest cites the section of the standard.

Section numbers are those of https://dicom.nema.org/medical/dicom/current.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, pydicom (>=3; compressed files also a decoder, see `_PACKAGES` with their licenses).
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.multival import MultiValue
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_windowing,
    get_decoder,
)
from pydicom.pixels.decoders.base import Decoder
from pydicom.sequence import Sequence

Source = str | os.PathLike[str] | bytes | BinaryIO | Dataset
Voi = Literal["auto", "lut", "window", "percentiles"]
Header = Mapping[str, Any]  # keyword -> value, of the elements in _TAGS

_TAGS = {
    0x00181164: "ImagerPixelSpacing",
    0x00280002: "SamplesPerPixel",
    0x00280004: "PhotometricInterpretation",
    0x00280006: "PlanarConfiguration",
    0x00280008: "NumberOfFrames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280030: "PixelSpacing",
    0x00280034: "PixelAspectRatio",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
    0x00280121: "PixelPaddingRangeLimit",
    0x00281050: "WindowCenter",
    0x00281051: "WindowWidth",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00281056: "VOILUTFunction",
    0x00283000: "ModalityLUTSequence",
    0x00283010: "VOILUTSequence",
}

_COUNTS = (
    "SamplesPerPixel",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)

_LUMA = np.array([0.2990, 0.5870, 0.1140])  # Y of YBR_FULL, PS3.3 C.7.6.3.1.2
_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_FAMILY = {  # start-of-frame marker (ISO/IEC 10918-1 table B.1) -> transfer syntaxes
    0xC0: (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    0xC1: (uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit),
    0xC3: (uid.JPEGLosslessSV1, uid.JPEGLossless),
    0xF7: _JPEG_LS,
}
_SYNTAXES = frozenset(uid.AllTransferSyntaxes)
_J2K_FAMILY = (
    uid.JPEG2000,
    uid.JPEG2000Lossless,
    uid.HTJ2K,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
)
_LOSSY = (  # or may be
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
)
_PIXEL_DATA = 0x7FE00010
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"  # PS3.5 7.5
_ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
_ITEM = b"\xfe\xff\x00\xe0"  # PS3.5 A.4
_BEGINNING = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|[\x01-\x0f]\0\0\0\x40\0\0\0")
_END_MARK = b"\xff\xd9"  # EOI of JPEG, EOC of JPEG 2000
_HTJ2K = _J2K_FAMILY[2:]
_PACKAGES = (  # pydicom's name of the plugin, what to install with its license, what it cannot
    ("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg (MIT)", (*_JPEG_LS, *_JPEG)),
    ("pyjpegls", "pyjpegls (MIT)", (*_J2K_FAMILY, *_JPEG)),
    ("gdcm", "python-gdcm (BSD)", _HTJ2K),
    ("pylibjpeg", "pylibjpeg (MIT) pylibjpeg-libjpeg (GPL-3.0)", _J2K_FAMILY),
)


class DicomError(ValueError):
    """A file that gives no picture; the message names the reason and the remedy.

    `read_dicom` and `load_dataset` name the file as well.
    """


class _UnreadableError(DicomError):
    """An element that cannot be read; where it is not needed, it is passed over."""


@dataclass(frozen=True)
class DicomImage:
    """A radiograph and what was done to get it.

    Attributes:
        pixels: float32 (H, W), 0 to 1, bright = dense; padding is 0.
        steps: what was done, in order, in words.
        voi: which values of interest: 'lut', 'window', 'percentiles' or 'color'.
        window: center and width of the window used, in modality units, or None.
        photometric: Photometric Interpretation as stored, e.g. 'MONOCHROME1'.
        bits_stored: 1 to 32.
        transfer_syntax: name of the transfer syntax that the pixels were decoded with.
        spacing_mm: height and width in mm of a pixel of `pixels`, or None. It is Pixel Spacing,
            else Imager Pixel Spacing, which is measured at the detector: the body is magnified
            there, so lengths in it come out too large.
        pixel_aspect: height over width of a stored pixel.
        scale_xy: factors from stored pixel coordinates to those of `pixels`; (1, 1) unless
            `square_pixels` was asked for.
        padding: share of pixels that were padding, 0 to 1.
    """

    pixels: np.ndarray
    steps: tuple[str, ...]
    voi: str
    window: tuple[float, float] | None
    photometric: str
    bits_stored: int
    transfer_syntax: str
    spacing_mm: tuple[float, float] | None
    pixel_aspect: float
    scale_xy: tuple[float, float]
    padding: float


def read_dicom(
    source: Source,
    *,
    voi: Voi = "auto",
    index: int = 0,
    percentiles: tuple[float, float] = (0.5, 99.5),
    square_pixels: bool = False,
    max_pixels: int = 100_000_000,
) -> DicomImage:
    """Read one radiograph.

    An element that cannot be read and is not needed (spacing, padding, High Bit, offset tables,
    table or window, the modality transform and with it the VOI) is passed over; the steps say so.

    Args:
        source: path, the file's bytes, an open binary file, or a pydicom Dataset.
        voi: which part of the range becomes the picture. 'auto' takes the VOI table, else the
            window, else the percentiles; a table or window that is unusable is passed over, and
            the steps say so. A named choice that the file does not offer is an error.
        index: which of several tables or windows, counted from 0. Any but 0 must be there, unless
            `voi` is 'percentiles'.
        percentiles: low and high, 0 to 100, of the values that are no padding, shown as black and
            white where neither table nor window is used.
        square_pixels: resample pixels that are not square along their longer side. Boxes must
            then be multiplied by `scale_xy`.
        max_pixels: refuse an image whose header promises more than this.

    Returns:
        The picture with what was done to it.

    Raises:
        DicomError: the file gives no picture; the message names file, reason and remedy.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> image = read_dicom(get_testdata_file('CT_small.dcm'))
        >>> image.pixels.shape, image.pixels.dtype, image.voi
        ((128, 128), dtype('float32'), 'percentiles')
    """
    with _named(source):
        _check_choice(voi, index, percentiles)
        if not isinstance(max_pixels, Integral):
            raise DicomError(f"max_pixels must be a whole number, not {max_pixels!r}")
        dataset, note = _parsed(source)
        header = _header(dataset)
        _check_header(dataset, header, max_pixels)
        return _picture(dataset, header, note, (voi, index, percentiles), square_pixels)


def load_dataset(source: Source) -> Dataset:
    """Parse the file, with or without preamble and file meta information.

    Raises:
        DicomError: no such file, not readable, or no DICOM in it.
    """
    with _named(source):
        return _parsed(source)[0]


def stored_values(dataset: Source) -> np.ndarray:
    """Decode the one frame.

    Args:
        dataset: with the Image Pixel module and Pixel Data, or whatever `read_dicom` takes.

    Returns:
        Integers (H, W), or (H, W, 3) of RGB for a color image, without the bits that are not
        the pixel's (PS3.5 8.1.1: Bits Stored of them, the top one at High Bit).

    Raises:
        DicomError: no, short or damaged pixel data, several frames, or a header in contradiction.
    """
    with _named(dataset):
        dataset, _ = _parsed(dataset)
        header = _header(dataset)
        _check_header(dataset, header, max_pixels=2**32)
        return _decode(dataset, header)[0]


def modality_values(values: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, str]:
    """Turn stored values into those of the modality (PS3.3 C.11.1): table or slope and intercept.

    Args:
        values: stored integers, any shape: array, tensor or list.
        dataset: with a Modality LUT Sequence, Rescale Slope and Intercept, or neither.

    Returns:
        The values, same shape, and the step in words.

    Raises:
        DicomError: the table is broken, the slope is 0, or slope or intercept no number.
            `read_dicom` passes over what cannot be read, but not over a slope of 0, NaN or inf.

    Example:
        >>> dataset = Dataset()
        >>> dataset.RescaleSlope, dataset.RescaleIntercept = 2, -100
        >>> modality_values(np.array([0, 50, 100]), dataset)
        (array([-100.,    0.,  100.]), 'rescale: 2 x value - 100')
    """
    header, values = _header(dataset), _checked_values(values)
    if items := _items(header, "ModalityLUTSequence"):
        table, _, promised = _lookup(values, items[0], header, "Modality LUT")
        return table, f"modality table of {promised} bits"
    slopes, intercepts = (_values(header, k) for k in ("RescaleSlope", "RescaleIntercept"))
    if not slopes and not intercepts:
        return values, "no modality transform"
    slope, intercept = _number(header, "RescaleSlope", 1), _number(header, "RescaleIntercept", 0)
    if not (np.isfinite([slope, intercept]).all() and slope):
        raise DicomError(f"Rescale Slope {slope:g} and Intercept {intercept:g} give no picture")
    step = f"rescale: {slope:g} x value {'-' if intercept < 0 else '+'} {abs(intercept):g}"
    if slope == 1 and intercept == 0:
        return values, step
    rescale = Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = slope, intercept
    return apply_modality_lut(values, rescale), step


def display_values(
    values: np.ndarray,
    dataset: Dataset,
    *,
    voi: Voi = "auto",
    index: int = 0,
    percentiles: tuple[float, float] = (0.5, 99.5),
    counts: Callable[[], np.ndarray] | None = None,
) -> tuple[np.ndarray, str, str, tuple[float, float] | None]:
    """Map modality values to [0, 1] by VOI table, window or percentiles (PS3.3 C.11.2).

    Args:
        values: modality values, any shape: array, tensor or list.
        dataset: with VOI LUT Sequence, Window Center and Width, or neither.
        voi: see `read_dicom`.
        index: see `read_dicom`.
        percentiles: low and high, 0 to 100.
        counts: returns how often each value occurs, same shape; called if percentiles are
            needed. Once each if None.

    Returns:
        float64 of the same shape, 0 to 1, before polarity; which of 'lut', 'window' and
        'percentiles' was used; the step in words; the window used, or None.

    Raises:
        DicomError: what was asked for by name or by index is missing or unusable, or the picture
            is blank.
    """
    _check_choice(voi, index, percentiles)
    header, values = _header(dataset), _checked_values(values)
    passed_over = ""
    for kind, way in (("lut", _by_table), ("window", _by_window)):
        if voi not in ("auto", kind):
            continue
        try:
            found = way(values, header, index)
        except (DicomError, ValueError) as error:
            if voi == kind:
                raise DicomError(f"{error}; pass voi='percentiles' to do without") from error
            passed_over += f" ({kind} passed over: {error})"
            continue
        if found is None and voi == kind:
            raise DicomError(f"the file has no VOI {kind}; pass voi='auto' or 'percentiles'")
        if found is not None:
            return found[0], kind, found[1] + passed_over, found[2]
    if voi == "auto" and index != 0:
        raise DicomError(
            f"no table or window of index {index}{passed_over}; pass index=0 or voi='percentiles'"
        )
    shown, step = _by_percentiles(values, percentiles, counts)
    return shown, "percentiles", step + passed_over, None


# --- the whole way --------------------------------------------------------------------------------

_AGAIN = "download or export it again"


def _picture(
    dataset: Dataset,
    header: Header,
    note: str,
    choice: tuple[Voi, int, tuple[float, float]],
    square_pixels: bool,
) -> DicomImage:
    stored, syntax, more = _decode(dataset, header)
    steps = [f"decoded {syntax.name}{note}{more}"]
    if stored.ndim == 3:
        pixels, kind, window, padding = _luma(stored, header, steps), "color", None, 0.0
    else:
        pixels, kind, window, padding = _monochrome(stored, header, steps, choice)
    spacing, aspect = _spacing(header, steps)
    pixels, scale_xy = _maybe_squared(pixels, aspect, square_pixels, steps)
    if spacing:
        spacing = spacing[0] / scale_xy[1], spacing[1] / scale_xy[0]
    return DicomImage(
        pixels=pixels,
        steps=tuple(steps),
        voi=kind,
        window=window,
        photometric=str(header["PhotometricInterpretation"]),
        bits_stored=_whole(header, "BitsStored"),
        transfer_syntax=syntax.name,
        spacing_mm=spacing,
        pixel_aspect=aspect,
        scale_xy=scale_xy,
        padding=padding,
    )


def _luma(stored: np.ndarray, header: Header, steps: list[str]) -> np.ndarray:
    """From RGB to gray (PS3.3 C.7.6.3.1.2); adds to `steps`."""
    bits = 8 * stored.dtype.itemsize if _is_palette(header) else _whole(header, "BitsStored")
    steps.append("color to gray by luma")
    return np.clip(stored @ _LUMA / (2**bits - 1), 0, 1).astype(np.float32)


def _monochrome(
    stored: np.ndarray,
    header: Header,
    steps: list[str],
    choice: tuple[Voi, int, tuple[float, float]],
) -> tuple[np.ndarray, str, tuple[float, float] | None, float]:
    """From stored values to gray; adds to `steps`."""
    # Every step maps one value to one value: do it once per value, not once per pixel.
    grid, where, first = _distinct(stored)

    def counts() -> np.ndarray:
        return np.bincount(where.ravel())[first:]

    padded, padding = _is_padding(grid, header, steps), 0.0
    if padded.all():
        raise DicomError("every pixel is padding; the file holds no picture")
    if padded.any():
        padding = float(counts()[padded].sum() / stored.size)
    if padding:
        steps.append(f"padding masked: {padding:.1%} of the pixels")
    voi, index, percentiles = choice
    try:
        values, step = modality_values(grid[~padded], header)
    except _UnreadableError as error:
        if voi in ("lut", "window"):
            raise DicomError(f"{error}, so the {voi} has no scale; pass voi='auto'") from error
        values, step = (
            grid[~padded],
            f"modality transform, and with it the VOI, passed over: {error}",
        )
        voi = "percentiles"
    steps.append(step)
    shown, kind, step, window = display_values(
        values,
        header,
        voi=voi,
        index=index,
        percentiles=percentiles,
        counts=lambda: counts()[~padded],
    )
    steps.append(step)
    if header["PhotometricInterpretation"] == "MONOCHROME1":
        shown = 1 - shown  # the lowest value is white, PS3.3 C.7.6.3.1.2
        steps.append("MONOCHROME1: inverted")
    curve = np.zeros(first + len(grid), dtype=np.float32)
    curve[first:][~padded] = shown
    return curve[where], kind, window, padding


@contextmanager
def _named(source: Source) -> Iterator[None]:
    """Name the source in every error, and make a DicomError of it."""
    try:
        yield
    except DicomError as error:
        raise DicomError(f"{_name(source)}: {error}") from error.__cause__
    except Exception as error:  # pydicom and the decoders raise whatever they met
        reason = f"{type(error).__name__}: {_short(error)}"
        raise DicomError(
            f"{_name(source)}: not understood ({reason}); if the file is damaged, {_AGAIN}"
        ) from error


def _short(value: object) -> str:
    return " ".join(str(value).split())[:300]


def _reason(error: DicomError) -> str:
    """Return the message without its remedy, for what is passed over needs none."""
    return str(error).removesuffix(f"; {_AGAIN}")


def _check_choice(voi: Voi, index: int, percentiles: tuple[float, float]) -> None:
    if not isinstance(voi, str) or voi not in ("auto", "lut", "window", "percentiles"):
        raise DicomError(f"voi must be 'auto', 'lut', 'window' or 'percentiles', not {voi!r}")
    if not isinstance(index, Integral):
        raise DicomError(f"index must be a whole number, not {index!r}")
    try:
        low, high = (float(number) for number in percentiles)
    except (TypeError, ValueError):
        raise DicomError(f"percentiles must be two numbers, not {percentiles!r}") from None
    if not 0 <= low < high <= 100:
        raise DicomError(f"percentiles must rise from 0 to 100, not {low:g} and {high:g}")


def _checked_values(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "iuf" or values.size == 0 or not np.isfinite(values).all():
        raise DicomError(
            f"expected finite numbers, at least one, not {values.dtype} of shape {values.shape}"
        )
    return values


def _parsed(source: Source) -> tuple[Dataset, str]:
    """Parse, and say if the end mark of the pixel data is missing."""
    if isinstance(source, Dataset):
        return source, ""
    data, note = _content(source), ""
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    for ends in (_SEQUENCE_END, (_ITEM_END + _SEQUENCE_END) * 8):
        # Without the end mark of a value of undefined length, pydicom drops the whole dataset.
        if _PIXEL_DATA not in dataset:
            mended = pydicom.dcmread(io.BytesIO(data + ends), force=True)
            if len(mended) > len(dataset):
                dataset, note = mended, "; the file ends before an end mark"
    if any(tag.group in (0x0004, 0x0008, 0x0028, 0x7FE0) for tag in dataset.keys()):
        return dataset, note
    if data[128:132] == b"DICM":
        raise DicomError(f"no DICOM file beyond its mark 'DICM': no element of an image; {_AGAIN}")
    raise DicomError(f"no DICOM file (it begins with {data[:12]!r}); {_AGAIN}")


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
    raise DicomError(f"the file is empty; {_AGAIN}")


def _name(source: Source) -> str:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if not isinstance(source, (str, os.PathLike, Dataset)) and not hasattr(source, "read"):
        return _short(repr(source))
    if isinstance(source, Dataset):
        return str(getattr(source, "filename", None) or "<dataset>")
    return str(getattr(source, "name", "<stream>") if hasattr(source, "read") else source)


def _header(dataset: Dataset | Header) -> Header:
    """Read the elements in _TAGS once; one that cannot be parsed becomes its error."""
    if isinstance(dataset, Mapping):
        return dataset
    if not isinstance(dataset, Dataset):
        raise DicomError(f"expected a pydicom Dataset, not {type(dataset).__name__}")
    present = {int(tag) for tag in dataset.keys()}
    header: dict[str, Any] = {}
    for tag, keyword in _TAGS.items():
        if tag in present:
            try:
                header[keyword] = dataset[tag].value
            except Exception as error:  # any parser's
                header[keyword] = error
    for keyword in _COUNTS:  # a wrong VR makes text or fractions of them
        value = header.get(keyword)
        if isinstance(value, (str, float)) and str(value).strip().isdecimal():
            header[keyword] = int(value)
    photometric = header.get("PhotometricInterpretation")
    if isinstance(photometric, str):
        header["PhotometricInterpretation"] = photometric.strip(" \0").upper()
    meta = getattr(dataset, "file_meta", None) or {}
    little = getattr(dataset, "original_encoding", (None, None))[1]
    declared = meta.get("TransferSyntaxUID")
    header["big endian"] = little is False if not declared else declared == uid.ExplicitVRBigEndian
    return header


def _check_header(dataset: Dataset, header: Header, max_pixels: int) -> None:
    """Refuse what cannot be one gray radiograph before any memory is spent on it."""
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise DicomError("pixels are floating point numbers; a radiograph has integers")
        kind = uid.UID(str(dataset.get("SOPClassUID", ""))).name or "unknown kind"
        raise DicomError(
            f"no Pixel Data (it is of {kind}); leave it out, or, if an image, {_AGAIN}"
        )
    if not _pixel_data(dataset):
        raise DicomError(f"cut: 0 bytes of pixels; {_AGAIN}")
    photometric = header.get("PhotometricInterpretation")
    if not photometric:
        raise DicomError(f"the header lacks PhotometricInterpretation; {_AGAIN}")
    if not isinstance(photometric, str):
        raise DicomError(f"PhotometricInterpretation is {_short(photometric)}, expected one word")
    rows, columns, allocated = (_whole(header, k) for k in ("Rows", "Columns", "BitsAllocated"))
    _whole(header, "SamplesPerPixel"), _whole(header, "PixelRepresentation")
    frames = _whole(header, "NumberOfFrames", 1) or 1
    if frames != 1:
        raise DicomError(f"holds {frames} frames; a radiograph has one. Export it as single images")
    if rows < 1 or columns < 1 or rows * columns > max_pixels:
        raise DicomError(
            f"the header says {rows} rows x {columns} columns, expected 1 to {max_pixels} pixels "
            "in all; pass max_pixels if the image really is that large"
        )
    stored, high, _ = _bit_layout(header)
    if not 1 <= stored <= high + 1 <= allocated <= 32:
        raise DicomError(
            f"BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} contradict "
            "each other (PS3.5 8.1.1)"
        )


def _whole(header: Header, keyword: str, default: int | None = None) -> int:
    """Return a whole number of the header, or say that it is missing."""
    values = _values(header, keyword)
    if not values and default is None:
        raise DicomError(f"the header lacks {keyword}; {_AGAIN}")
    if not values:
        return default
    try:
        if len(values) == 1 and int(values[0]) == float(values[0]):
            return int(values[0])
    except (TypeError, ValueError, OverflowError):
        pass
    told = _short(repr(header[keyword]))
    raise DicomError(f"{keyword} is {told}, expected one whole number; {_AGAIN}")


def _is_palette(header: Header) -> bool:
    return header["PhotometricInterpretation"] == "PALETTE COLOR"


# --- stored values --------------------------------------------------------------------------------


def _decode(dataset: Dataset, header: Header) -> tuple[np.ndarray, uid.UID, str]:
    """Decode, and name the transfer syntax and what was wrong with the one declared."""
    data = _pixel_data(dataset)
    syntax, note = _transfer_syntax(dataset, data, header)
    decoder = _decoder(syntax)
    unpack = _decompressed if syntax.is_encapsulated else _native
    values, photometric, bits, left_out = unpack(decoder, data, header, dataset["PixelData"].VR)
    values, cleared = _own_bits(values, bits, header, lossy=syntax in _LOSSY)
    if values.ndim == 2 and _is_palette(header):
        values, held = _palette_colors(values, dataset)
        cleared += held
    elif values.ndim == 3 and photometric != "RGB":
        raise DicomError(f"color stored as {photometric}; convert it to RGB or gray")
    elif values.ndim == 2 and photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError(f"one sample per pixel, but {photometric}; expected MONOCHROME1 or 2")
    return values, syntax, note + left_out + cleared


def _palette_colors(values: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, str]:
    """Look up RGB, in 8 bits if no entry of a palette of 16 bits needs more."""
    colors = apply_color_lut(values, dataset)
    every = apply_color_lut(np.arange(1 << 16, dtype=np.uint16).reshape(256, 256), dataset)
    if colors.dtype.itemsize == 1 or every.max() > 255:
        return colors, ""
    return colors.astype(np.uint8), "; palette of 8 bits (its descriptor says 16)"


def _pixel_data(dataset: Dataset) -> bytes:
    value = dataset["PixelData"].value
    if hasattr(value, "read"):  # pydicom leaves a buffer where it was given one
        value.seek(0)
        value = value.read()
    if not isinstance(value, (bytes, bytearray, memoryview, type(None))):
        raise DicomError(f"Pixel Data are of type {type(value).__name__}, expected bytes")
    return bytes(value or b"")


def _native(
    decoder: Decoder, data: bytes, header: Header, vr: str
) -> tuple[np.ndarray, str, int, str]:
    """Decode as many bytes as the header promises: values, color, bits of a value, a word."""
    length, expected, note = len(data), _expected_length(header), ""
    if length < expected:
        raise DicomError(f"cut: {length} bytes of pixels, expected {expected}; {_AGAIN}")
    if length > expected + 1 and not header["PhotometricInterpretation"].startswith("YBR"):
        note = f"; {length - expected} bytes beyond the picture left out"
        data = data[: expected + expected % 2]
    if _whole(header, "SamplesPerPixel") == 3 and _whole(header, "PlanarConfiguration") > 1:
        raise DicomError("PlanarConfiguration must be 0 or 1; export the file again")
    bits = _whole(header, "BitsAllocated")
    return *_run(decoder, data, header, bits, bits, vr), bits, note


_NO_END = "; the compressed picture has no end mark"


def _decompressed(
    decoder: Decoder, data: bytes, header: Header, vr: str
) -> tuple[np.ndarray, str, int, str]:
    """Decode the one frame: values, color, bits of a value, a word."""
    frame, missing = _frame(data)
    try:
        if not frame:
            raise DicomError(f"the compressed pixel data hold no picture; {_AGAIN}")
        if decoder.UID == uid.RLELossless:
            bits = _whole(header, "BitsAllocated")
            return *_decoded_frame(decoder, frame, header, bits, vr), bits, ""
        stream = _checked_stream(frame, header)
        if stream.end is None:
            decoded, note = _without_end(decoder, frame, header, stream.bits, vr)
        else:
            whole, rest = frame[: stream.end], frame[stream.end :].strip(b"\0\xff")
            note = f"; {len(rest)} bytes after the compressed picture left out" if rest else ""
            if not whole.endswith(_END_MARK):
                whole, note = whole + _END_MARK, _NO_END
            decoded = _decoded_frame(decoder, whole, header, stream.bits, vr)
    except DicomError as error:
        if missing:
            told = f"{missing} bytes fewer than promised"
            raise DicomError(f"the compressed pixel data are cut, {told}: {error}") from error
        raise
    return *decoded, stream.bits, note


def _decoded_frame(
    decoder: Decoder, frame: bytes, header: Header, bits: int, vr: str
) -> tuple[np.ndarray, str]:
    """Decode one frame, encapsulated anew: the file's offset tables may be wrong."""
    allocated = bits if bits % 8 == 0 and bits != 24 else 8 if bits < 8 else 16 if bits < 16 else 32
    return _run(decoder, encapsulate([frame], has_bot=False), header, allocated, bits, vr)


def _without_end(
    decoder: Decoder, frame: bytes, header: Header, bits: int, vr: str
) -> tuple[tuple[np.ndarray, str], str]:
    """Decode a stream without end mark if it is whole: what follows must not change the picture.

    Decoders fill up a cut picture without a word, with what follows or with gray.
    """
    frame = frame.rstrip(b"\0")  # zeros stand where a file was not written to its end
    try:
        first, *others = (
            _decoded_frame(decoder, frame + filler * 4096 + _END_MARK, header, bits, vr)
            for filler in (b"\x00", b"\xfe", b"\x55")
        )
    except DicomError as error:
        raise DicomError(_CUT) from error
    if not all(np.array_equal(first[0], other[0]) for other in others):
        raise DicomError(_CUT)
    return first, _NO_END


def _decoder(syntax: uid.UID) -> Decoder:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        film = re.search("MPEG|HEVC|SMPTE", syntax.name)
        why = "holds no still picture" if film else "is none that pydicom can decode"
        raise DicomError(
            f"transfer syntax {syntax.name} {why}; convert it, e.g. with gdcmconv --raw"
        ) from None
    if not decoder.is_available:
        raise DicomError(
            f"no decoder for {syntax.name} is installed; pip install {_installable(decoder)}"
        )
    return decoder


def _installable(decoder: Decoder) -> str:
    """Say which packages could decode this syntax and are not installed, with their licenses."""
    packages = [
        package
        for plugin, package, cannot in _PACKAGES
        if decoder.UID not in cannot and plugin not in decoder.available_plugins
    ]
    return ", or ".join(packages)


def _run(
    decoder: Decoder, data: bytes, header: Header, allocated: int, bits: int, vr: str
) -> tuple[np.ndarray, str]:
    """Let pydicom's decoder do its work; return values and Photometric Interpretation."""
    options = {
        "rows": header["Rows"],
        "columns": header["Columns"],
        "samples_per_pixel": _whole(header, "SamplesPerPixel"),
        "photometric_interpretation": header["PhotometricInterpretation"],
        "planar_configuration": int(header.get("PlanarConfiguration") == 1),
        "pixel_representation": _whole(header, "PixelRepresentation"),
        "bits_allocated": allocated,
        "bits_stored": bits,
        "number_of_frames": 1,
        "allow_excess_frames": False,
        "correct_unused_bits": False,  # _own_bits does, and tells
        "pixel_keyword": "PixelData",
        "pixel_vr": vr,
    }
    try:
        values, properties = decoder.as_array(data, **options)
    except RuntimeError as error:
        other = _installable(decoder)
        raise DicomError(
            f"no decoder at hand can read the pixel data ({_short(error)}); {_AGAIN}"
            + (f", or install another decoder: {other}" if other else "")
        ) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pylibjpeg-rle's, no subclass of Exception
            raise
        raise DicomError(f"the compressed pixel data are damaged; {_AGAIN}") from error
    return values, properties["photometric_interpretation"]


def _own_bits(
    values: np.ndarray, bits: int, header: Header, *, lossy: bool
) -> tuple[np.ndarray, str]:
    """Keep the bits of each cell that are the pixel's (PS3.5 8.1.1), and say what else was in it.

    Args:
        values: of `bits` bits as decoded: more than Bits Stored if overlays or junk lie above.
        bits: of a cell.
        header: with Bits Stored, High Bit, Pixel Representation.
        lossy: the loss may carry values beyond Bits Stored; without their top bit they would turn
            from white to black, so they are kept.
    """
    stored, high, note = _bit_layout(header)
    shift = high + 1 - stored if high < bits else 0
    signed = header["PixelRepresentation"] == 1
    top = 1 << (stored - signed)
    if shift == 0 and values.min() >= -top * signed and values.max() < top:
        return values, note
    cells = values.astype(np.int64) >> shift
    own = cells & ((1 << stored) - 1)
    if signed:
        own = np.where(own >> (stored - 1), own - (1 << stored), own)
    junk = np.count_nonzero((own != cells) & (cells >> stored != 0))
    if lossy and not shift and not signed:
        return values, f"{note}; {junk} pixels are above the {stored} Bits Stored, kept (lossy)"
    note += f"; high bit {high}" if shift else ""
    note += f"; bits above the {stored} Bits Stored left out of {junk} pixels" if junk else ""
    return own.astype(np.int32 if signed or stored < 32 else np.uint32), note


def _bit_layout(header: Header) -> tuple[int, int, str]:
    """Bits Stored and High Bit, which is the top one of them if it cannot be parsed."""
    stored = _whole(header, "BitsStored")
    try:
        return stored, _whole(header, "HighBit", stored - 1), ""
    except DicomError as error:
        return stored, stored - 1, f"; high bit passed over: {_reason(error)}"


def _transfer_syntax(dataset: Dataset, data: bytes, header: Header) -> tuple[uid.UID, str]:
    """Find the transfer syntax: as declared where that can be, else from the data themselves."""
    declared = _declared_syntax(dataset)
    encapsulated = data.startswith(_ITEM)
    native = declared is not None and not declared.is_encapsulated
    if native and not (encapsulated and dataset["PixelData"].is_undefined_length):
        return declared, ""
    if encapsulated:
        found = _encapsulated_syntax(data, header, declared, native)
    elif declared is not None and len(data) < 8:
        raise DicomError(f"the compressed pixel data are cut: {len(data)} bytes are left; {_AGAIN}")
    elif declared is not None and len(data) < _expected_length(header):
        raise DicomError(f"declared {declared.name}, but the pixel data are not encapsulated")
    else:
        found = _native_syntax(dataset)
    told = f" (the header says {declared.name if declared else 'nothing'})"
    return found, "" if found == declared else told


def _declared_syntax(dataset: Dataset) -> uid.UID | None:
    meta = getattr(dataset, "file_meta", None) or {}
    declared = str(meta.get("TransferSyntaxUID") or "").strip(" \0")
    if declared and declared not in _SYNTAXES:
        raise DicomError(f"transfer syntax {declared} is not known; {_AGAIN}")
    return uid.UID(declared) if declared else None


def _encapsulated_syntax(
    data: bytes, header: Header, declared: uid.UID | None, native: bool
) -> uid.UID:
    """Keep the declared syntax if the codestream can be of it, else take what it looks like."""
    family = _family(_frame(data)[0], header)
    if declared in family or not family and declared is not None and not native:
        return declared
    if not family:
        raise DicomError("no transfer syntax in the header, and the pixel data tell none")
    return family[0]


def _native_syntax(dataset: Dataset) -> uid.UID:
    """Tell by what pydicom found when it parsed the elements (PS3.5 A.1 to A.3)."""
    implicit, little = getattr(dataset, "original_encoding", (None, None))
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if little is False else uid.ExplicitVRLittleEndian


def _frame(data: bytes) -> tuple[bytes, int]:
    """Join the fragments of the one frame (PS3.5 A.4), and count the bytes that they lack.

    One frame needs no offset table: neither the first item, which may be wrong or left out, nor
    the Extended Offset Table is looked at.
    """
    at, items = 0, []
    while data[at : at + 4] == _ITEM and at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        items.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    if items and not _BEGINNING.match(items[0]):
        del items[0]
    return b"".join(items), max(at - len(data), 0)


def _family(frame: bytes, header: Header) -> tuple[uid.UID, ...]:
    """Tell from its first bytes which transfer syntaxes a codestream can belong to."""
    if frame.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")):
        return _J2K_FAMILY
    if frame.startswith(b"\xff\xd8"):
        try:
            return _JPEG_FAMILY.get(_jpeg_frame_header(frame)[0], ())
        except DicomError:
            return ()
    # RLE header: the number of segments and the first one's offset, 64 (PS3.5 G.5)
    segments = header["SamplesPerPixel"] * (header["BitsAllocated"] // 8)
    if frame[:8] == segments.to_bytes(4, "little") + (64).to_bytes(4, "little"):
        return (uid.RLELossless,)
    return ()


_CUT = f"the compressed picture is cut: it has no end; {_AGAIN}"


class _Stream(NamedTuple):
    """What a compressed picture says of itself; `end` is where it ends, or None."""

    rows: int
    columns: int
    samples: int
    bits: int
    end: int | None


def _checked_stream(frame: bytes, header: Header) -> _Stream:
    """Compare what the compressed picture says of itself with the header."""
    stream = _jpeg_stream(frame) if frame.startswith(b"\xff\xd8") else _j2k_stream(frame)
    for what, said, found in (
        ("rows", header["Rows"], stream.rows),
        ("columns", header["Columns"], stream.columns),
        ("samples", _whole(header, "SamplesPerPixel"), stream.samples),
    ):
        if said != found:
            raise DicomError(
                f"the header says {header['Rows']} x {header['Columns']}, the compressed picture "
                f"{stream.rows} x {stream.columns} ({said} and {found} {what}); {_AGAIN}"
            )
    if stream.bits > _whole(header, "BitsAllocated"):
        raise DicomError(
            f"the header says {header['BitsAllocated']} Bits Allocated, the compressed picture has "
            f"{stream.bits}; {_AGAIN}"
        )
    return stream


def _jpeg_stream(frame: bytes) -> _Stream:
    _, at = _jpeg_frame_header(frame)
    rows, columns = (int.from_bytes(frame[at + k : at + k + 2], "big") for k in (5, 7))
    return _Stream(rows, columns, frame[at + 9], frame[at + 4], _jpeg_end(frame))


def _jpeg_frame_header(frame: bytes) -> tuple[int, int]:
    """Walk a JPEG or JPEG-LS stream to its frame header: marker, position (10918-1 B.2.2)."""
    at = 2
    while at + 10 <= len(frame):
        if frame[at] != 0xFF:
            break
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _JPEG_FAMILY or 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker, at
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise DicomError(f"the JPEG data have no frame header; {_AGAIN}")


def _jpeg_end(frame: bytes) -> int | None:
    """Find where a JPEG or JPEG-LS stream ends; None without end mark.

    Among the coded pixels 0xFF is followed by less than 0x80 or by a restart mark, 0xD0 to 0xD7
    (ISO/IEC 10918-1 B.1.1.2, 14495-1 9.1); all other marks but the last lead a segment.
    """
    at, mark, scans = 2, re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]"), 0
    while found := mark.search(frame, at):
        if found[0] == _END_MARK:
            return found.end()
        scans += found[0] == b"\xff\xda"
        at = found.end() + int.from_bytes(frame[found.end() : found.end() + 2], "big")
    if not scans or at >= len(frame):
        raise DicomError(_CUT)
    return None


def _j2k_stream(frame: bytes) -> _Stream:
    start = frame.find(b"\xff\x4f\xff\x51")  # SOC and SIZ, ISO/IEC 15444-1 A.5.1
    if start < 0 or len(frame) < start + 43:
        raise DicomError(f"the compressed pixel data do not begin as they must; {_AGAIN}")
    right, below, left, above, wide, high, first_x, first_y = (
        int.from_bytes(frame[start + k : start + k + 4], "big") for k in range(8, 40, 4)
    )
    samples = int.from_bytes(frame[start + 40 : start + 42], "big")
    across, down = (
        -((a - b) // max(n, 1)) for a, b, n in ((first_x, right, wide), (first_y, below, high))
    )
    end = _j2k_end(frame, start, across * down)
    return _Stream(below - above, right - left, samples, (frame[start + 42] & 0x7F) + 1, end)


def _j2k_end(frame: bytes, start: int, tiles: int) -> int | None:
    """Find where a JPEG 2000 stream ends, with its end mark or after its last tile-part.

    The tile-parts (ISO/IEC 15444-1 A.4.2) tell their lengths, and how many there are of a tile.
    """
    at, seen, whole = start + 2, {}, 0
    while 0xFF4F < int.from_bytes(frame[at : at + 2], "big") != 0xFF90:  # the main header
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    while frame[at : at + 2] == b"\xff\x90" and at + 12 <= len(frame):
        tile, length = (
            int.from_bytes(frame[at + k : at + k + n], "big") for k, n in ((4, 2), (6, 4))
        )
        if length < 14:  # 0: it reaches to the end mark
            break
        seen[tile] = seen.get(tile, 0) + 1
        whole += seen[tile] == frame[at + 11]
        at += length
    if frame[at : at + 2] == _END_MARK:
        return at + 2
    if at <= len(frame.rstrip(b"\0")) and len(seen) == whole == tiles:
        return at
    marked = frame.rstrip(b"\x00\xff")
    return len(marked) if marked.endswith(_END_MARK) else None


def _expected_length(header: Header) -> int:
    values = header["Rows"] * header["Columns"] * header["SamplesPerPixel"]
    if header["PhotometricInterpretation"] == "YBR_FULL_422":  # two of three, PS3.3 C.7.6.3.1.2
        values = values // 3 * 2
    return (values * header["BitsAllocated"] + 7) // 8


# --- values of interest ---------------------------------------------------------------------------


def _by_table(values: np.ndarray, header: Header, index: int):
    """VOI LUT Sequence (PS3.3 C.11.2.1.1)."""
    tables = _items(header, "VOILUTSequence")
    if not tables:
        return None
    _check_index(index, len(tables), "VOI tables")
    shown, bits, promised = _lookup(values, tables[index], header, "VOI LUT")
    if np.ptp(shown) == 0:
        raise DicomError("VOI LUT gives one gray for all values")
    step = f"VOI table {index + 1} of {len(tables)}, {bits} bits"
    step += f" (its descriptor says {promised})" if promised != bits else ""
    return shown / (2**bits - 1), step, None


def _by_window(values: np.ndarray, header: Header, index: int):
    """Window Center and Width with their function (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centers, widths = (_values(header, k) for k in ("WindowCenter", "WindowWidth"))
    if not centers or not widths:
        return None
    if len(centers) != len(widths):
        raise DicomError(f"{len(centers)} window centers but {len(widths)} widths")
    _check_index(index, len(centers), "windows")
    center = _as_number(centers[index], "WindowCenter")
    width = _as_number(widths[index], "WindowWidth")
    if not np.isfinite([center, width]).all():
        raise DicomError(f"window {center:g} / {width:g} is no number")
    function = str((_values(header, "VOILUTFunction") or ["LINEAR"])[0]).strip(" \0").upper()
    # pydicom maps to the range that the header promises; with this header that is 0 to 255.
    view = Dataset()
    view.PhotometricInterpretation, view.PixelRepresentation = "MONOCHROME2", 0
    view.BitsStored, view.VOILUTFunction = 8, function
    view.WindowCenter, view.WindowWidth = center, width
    with np.errstate(over="ignore"):  # exp of a steep sigmoid's far end: 1 / inf is 0
        shown = apply_windowing(values, view) / 255
    if np.ptp(shown) == 0:
        raise DicomError(f"window {center:g} / {width:g} gives one gray for all values")
    step = f"window {index + 1} of {len(centers)}: center {center:g}, width {width:g}, {function}"
    return np.clip(shown, 0, 1), step, (center, width)


def _by_percentiles(
    values: np.ndarray, percentiles: tuple[float, float], counts: Callable[[], np.ndarray] | None
) -> tuple[np.ndarray, str]:
    low_q, high_q = percentiles
    flat = np.ravel(values)
    weights = np.ones(flat.size, dtype=np.int64) if counts is None else np.ravel(counts())
    if weights.shape != flat.shape or not weights.any():
        raise DicomError("counts must be one number for each value, and not all 0")
    flat, weights = flat[weights > 0], weights[weights > 0]
    order = np.argsort(flat, kind="stable")
    below = np.cumsum(weights[order])
    rank = np.searchsorted(below, np.array(percentiles) / 100 * below[-1])
    low, high = (float(flat[order[min(k, flat.size - 1)]]) for k in rank)
    if low == high:  # fewer than the percentile differ from the rest: show all there is
        low, high = float(flat[order[0]]), float(flat[order[-1]])
    if low == high:
        raise DicomError(f"every pixel has the value {low:g}; the file holds no picture")
    step = f"percentiles {low_q:g} and {high_q:g}: {low:g} to {high:g}"
    return np.clip((values - low) / (high - low), 0, 1), step


def _lookup(
    values: np.ndarray, item: Dataset, header: Header, name: str
) -> tuple[np.ndarray, int, int]:
    """Look values up in a table (PS3.3 C.11.1.1 and C.11.2.1.1); bits of entries, and as promised.

    Not pydicom's: its apply_voi keeps the index in 8 bits where the entries have 8, and its
    apply_modality_lut fails on unsigned values with a negative first entry.
    """
    table, first, promised = _table(item, header, name)
    low, high = float(values.min()), float(values.max())
    for start in (first, first - 65536, first + 65536):  # its sign may be written wrongly
        if low < start + len(table) and start <= high:
            first = start
            break
    where = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.int64)
    return table[where], max(int(table.max()).bit_length(), 1), promised


def _table(item: Dataset, header: Header, name: str) -> tuple[np.ndarray, int, int]:
    """Read a table: its entries, the value that the first belongs to, bits of an entry."""
    try:
        entries, first, bits = (int(number) for number in item["LUTDescriptor"].value)
        data = item["LUTData"].value
        if not isinstance(data, bytes):
            words = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
        else:
            words = np.frombuffer(
                data + b"\0" * (len(data) % 2), ">u2" if header.get("big endian") else "<u2"
            )
    except Exception as error:  # any parser's
        reason = f"{type(error).__name__}: {_short(error)}"
        raise _UnreadableError(f"{name} cannot be parsed ({reason})") from error
    entries = entries % 65536 or 65536
    if bits <= 8 and len(words) == (entries + 1) // 2:  # packed, the lower byte first
        words = words.astype("<u2").view(np.uint8)
    if len(words) < entries:
        raise _UnreadableError(f"{name} has {len(words)} entries where {entries} are promised")
    return words[:entries].astype(np.int64), first, bits


def _items(header: Header, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, none if it is missing or empty."""
    value = header.get(keyword)
    if value is None or value == "" or isinstance(value, Sequence) and not len(value):
        return []
    if not isinstance(value, Sequence):
        raise _UnreadableError(f"{keyword} cannot be parsed ({_short(value)})")
    return value


def _values(header: Header, keyword: str) -> list[Any]:
    """Return an element's values, none if it is missing or empty."""
    value = header.get(keyword)
    if isinstance(value, Exception):
        raise _UnreadableError(f"{keyword} cannot be parsed ({_short(value)})")
    values = list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]
    return [] if all(one is None or one in ("", b"") for one in values) else values


def _number(header: Header, keyword: str, default: float) -> float:
    values = _values(header, keyword)
    if len(values) > 1:
        raise _UnreadableError(f"{keyword} is {_short(values)}, expected one number")
    return _as_number(values[0], keyword) if values else default


def _as_number(value: Any, keyword: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _UnreadableError(f"{keyword} is {_short(repr(value))}, not a number") from None


def _check_index(index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        raise DicomError(f"the file has {count} {what}, index {index} is none of them")


# --- pixels ---------------------------------------------------------------------------------------


def _distinct(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the range of values, each pixel's index, and the index of the first value."""
    low, high = int(stored.min()), int(stored.max())
    if high - low >= 1 << 17:
        grid, where = np.unique(stored, return_inverse=True)
        return grid.astype(np.int64), where.reshape(stored.shape), 0
    if 0 <= low < 1 << 16:  # the values can serve as indices as they are
        return np.arange(low, high + 1), stored, low
    return np.arange(low, high + 1), stored.astype(np.int32) - low, 0


def _is_padding(grid: np.ndarray, header: Header, steps: list[str]) -> np.ndarray:
    """Pixel Padding Value, or the range up to its limit, in stored values (PS3.3 C.7.5.1.1.2).

    What cannot be read is passed over with a word in `steps`.
    """
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            ends += (
                [_padding_end(_whole(header, keyword), header)] if _values(header, keyword) else []
            )
        except DicomError as error:
            steps.append(f"padding passed over: {_reason(error)}")
        if not ends:
            return np.zeros(len(grid), dtype=bool)
    return (grid >= min(ends)) & (grid <= max(ends))


def _padding_end(end: int, header: Header) -> int:
    """Read the number as the pixels are: signed ones are often written as unsigned."""
    allocated = _whole(header, "BitsAllocated")
    if header["PixelRepresentation"] != 1:
        return end + (1 << allocated) if end < 0 else end
    for bits in (allocated, 16):
        if 1 << (bits - 1) <= end < 1 << bits:
            return end - (1 << bits)
    return end


def _spacing(header: Header, steps: list[str]) -> tuple[tuple[float, float] | None, float]:
    """Height and width of a stored pixel in mm (PS3.3 10.7.1.3: row spacing first), their ratio.

    What cannot be read is passed over with a word in `steps`.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        try:
            numbers = [_as_number(value, keyword) for value in _values(header, keyword)]
            if not numbers:
                continue
            if len(numbers) != 2 or not np.isfinite(numbers).all() or min(numbers) <= 0:
                told = _short(header[keyword])
                raise DicomError(f"{keyword} is {told}, expected two numbers above 0")
        except DicomError as error:
            steps.append(f"spacing passed over: {error}")
            continue
        height, width = numbers
        return (None if keyword == "PixelAspectRatio" else (height, width)), height / width
    return None, 1.0


def _maybe_squared(
    pixels: np.ndarray, aspect: float, wanted: bool, steps: list[str]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Say that pixels are not square, and mend it if wanted; adds to `steps`."""
    if abs(aspect - 1) <= 0.01:
        return pixels, (1.0, 1.0)
    steps.append(f"pixels {aspect:.3g} times as high as wide")
    if not wanted:
        return pixels, (1.0, 1.0)
    steps[-1] += ", resampled to squares"
    return _squared(pixels, aspect)


def _squared(pixels: np.ndarray, aspect: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Stretch along a pixel's longer side, linearly; positions are pixel centers."""
    if not 0.1 <= aspect <= 10:
        raise DicomError(
            f"pixels are {aspect:g} times as high as wide; read with square_pixels off"
        )
    axis = 0 if aspect > 1 else 1
    length = pixels.shape[axis]
    longer = round(length * max(aspect, 1 / aspect))
    at = np.clip((np.arange(longer) + 0.5) * length / longer - 0.5, 0, length - 1)
    low = np.minimum(at.astype(int), max(length - 2, 0))
    part = (at - low).astype(np.float32)
    part = part[:, None] if axis == 0 else part
    a, b = pixels.take(low, axis), pixels.take(np.minimum(low + 1, length - 1), axis)
    scale = longer / length
    return np.clip(a + part * (b - a), 0, 1), (1.0, scale) if axis == 0 else (scale, 1.0)
