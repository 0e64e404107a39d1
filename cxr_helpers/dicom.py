"""Read a radiograph from a DICOM file: stored values to a gray picture, each step named.

The way of PS3.3 C.11 and PS3.4 N.2: decode, mask the padding, modality transform (rescale or
table), values of interest (table or window), polarity. `read_dicom` goes it all the way and lists
its steps; `load_dataset`, `stored_values`, `modality_values` and `display_values` are the steps.
Where pydicom has a function it is used; the rest cites the section of the standard.

Section numbers are those of https://dicom.nema.org/medical/dicom/current.

Needs: numpy, pydicom (>=3; compressed files: pylibjpeg with pylibjpeg-libjpeg and -openjpeg).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.multival import MultiValue
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_windowing,
    as_pixel_options,
    get_decoder,
)
from pydicom.pixels.decoders.base import Decoder

Source = str | os.PathLike[str] | bytes | BinaryIO | Dataset
Voi = Literal["auto", "lut", "window", "percentiles"]
Header = Mapping[str, Any]  # keyword -> value, of the elements in _TAGS

_TAGS = {
    0x00181164: "ImagerPixelSpacing",
    0x00280002: "SamplesPerPixel",
    0x00280004: "PhotometricInterpretation",
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

_LUMA = np.array([0.2990, 0.5870, 0.1140])  # Y of YBR_FULL, PS3.3 C.7.6.3.1.2
_JPEG_FAMILY = {  # start-of-frame marker (ISO/IEC 10918-1 table B.1) -> transfer syntaxes
    0xC0: (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    0xC1: (uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit),
    0xC3: (uid.JPEGLosslessSV1, uid.JPEGLossless),
    0xF7: (uid.JPEGLSLossless, uid.JPEGLSNearLossless),
}
_SYNTAXES = frozenset(uid.AllTransferSyntaxes)
_J2K_FAMILY = (
    uid.JPEG2000,
    uid.JPEG2000Lossless,
    uid.HTJ2K,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
)


class DicomError(ValueError):
    """A file that gives no picture; the message names the reason and the remedy.

    `read_dicom` and `load_dataset` name the file as well.
    """


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
        dataset = _parsed(source)
        return _picture(dataset, voi, index, percentiles, square_pixels, max_pixels)


def load_dataset(source: Source) -> Dataset:
    """Parse the file, with or without preamble and file meta information.

    Raises:
        DicomError: no such file, not readable, or no DICOM in it.
    """
    with _named(source):
        return _parsed(source)


def stored_values(dataset: Dataset) -> np.ndarray:
    """Decode the one frame.

    Args:
        dataset: with the Image Pixel module and Pixel Data.

    Returns:
        Integers (H, W), or (H, W, 3) of RGB for a color image, without the bits that are not
        the pixel's (PS3.5 8.1.1: Bits Stored of them, the top one at High Bit).

    Raises:
        DicomError: no, short or damaged pixel data, several frames, or a header in contradiction.
    """
    header = _header(dataset)
    _check_header(dataset, header, max_pixels=2**32)
    return _decode(dataset, header)[0]


def modality_values(values: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, str]:
    """Turn stored values into those of the modality (PS3.3 C.11.1): table or slope and intercept.

    Args:
        values: stored integers, any shape.
        dataset: with a Modality LUT Sequence, Rescale Slope and Intercept, or neither.

    Returns:
        The values, same shape, and the step in words.

    Raises:
        DicomError: the table is broken, or the slope is 0 or no number.

    Example:
        >>> dataset = Dataset()
        >>> dataset.RescaleSlope, dataset.RescaleIntercept = 2, -100
        >>> modality_values(np.array([0, 50, 100]), dataset)
        (array([-100.,    0.,  100.]), 'rescale: 2 x value - 100')
    """
    header = _header(dataset)
    if header.get("ModalityLUTSequence"):
        item = header["ModalityLUTSequence"][0]
        table, bits = _lookup(values, item, header, "Modality LUT")
        return table, f"modality table of {bits} bits"
    slopes, intercepts = (_numbers(header, k) for k in ("RescaleSlope", "RescaleIntercept"))
    if not slopes and not intercepts:
        return values, "no modality transform"
    slope, intercept = (slopes or [1.0])[0], (intercepts or [0.0])[0]
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
        values: modality values, any shape.
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
    if voi not in ("auto", "lut", "window", "percentiles"):
        raise DicomError(f"voi must be 'auto', 'lut', 'window' or 'percentiles', not {voi!r}")
    header = _header(dataset)
    passed_over = ""
    for kind, way in (("lut", _by_table), ("window", _by_window)):
        if voi not in ("auto", kind):
            continue
        try:
            found = way(values, header, index)
        except (DicomError, ValueError, TypeError, IndexError, AttributeError) as error:
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
    voi: Voi,
    index: int,
    percentiles: tuple[float, float],
    square_pixels: bool,
    max_pixels: int,
) -> DicomImage:
    header = _header(dataset)
    _check_header(dataset, header, max_pixels)
    stored, syntax, note = _decode(dataset, header)
    steps = [f"decoded {syntax.name}{note}"]
    if stored.ndim == 3:
        pixels, kind, window, padding = _luma(stored, header, steps), "color", None, 0.0
    else:
        options = {"voi": voi, "index": index, "percentiles": percentiles}
        pixels, kind, window, padding = _monochrome(stored, header, steps, options)
    spacing, aspect = _spacing(header)
    pixels, scale_xy = _maybe_squared(pixels, aspect, square_pixels, steps)
    if spacing:
        spacing = spacing[0] / scale_xy[1], spacing[1] / scale_xy[0]
    return DicomImage(
        pixels=pixels,
        steps=tuple(steps),
        voi=kind,
        window=window,
        photometric=str(header["PhotometricInterpretation"]),
        bits_stored=int(header["BitsStored"]),
        transfer_syntax=syntax.name,
        spacing_mm=spacing,
        pixel_aspect=aspect,
        scale_xy=scale_xy,
        padding=padding,
    )


def _luma(stored: np.ndarray, header: Header, steps: list[str]) -> np.ndarray:
    """From RGB to gray (PS3.3 C.7.6.3.1.2); adds to `steps`."""
    bits = 8 * stored.dtype.itemsize if _is_palette(header) else int(header["BitsStored"])
    steps.append("color to gray by luma")
    return np.clip(stored @ _LUMA / (2**bits - 1), 0, 1).astype(np.float32)


def _monochrome(
    stored: np.ndarray, header: Header, steps: list[str], options: dict[str, Any]
) -> tuple[np.ndarray, str, tuple[float, float] | None, float]:
    """From stored values to gray; adds to `steps`."""
    # Every step maps one value to one value: do it once per value, not once per pixel.
    grid, where, first = _distinct(stored)

    def counts() -> np.ndarray:
        return np.bincount(where.ravel())[first:]

    padded, padding = _is_padding(grid, header), 0.0
    if padded.all():
        raise DicomError("every pixel is padding; the file holds no picture")
    if padded.any():
        padding = float(counts()[padded].sum() / stored.size)
    if padding:
        steps.append(f"padding masked: {padding:.1%} of the pixels")
    values, step = modality_values(grid[~padded], header)
    steps.append(step)
    shown, kind, step, window = display_values(
        values, header, counts=lambda: counts()[~padded], **options
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
            f"{_name(source)}: damaged or not understood ({reason}); {_AGAIN}"
        ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _parsed(source: Source) -> Dataset:
    if isinstance(source, Dataset):
        return source
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
        elif hasattr(source, "read"):
            data = source.read()
        elif isinstance(source, (str, os.PathLike)):
            data = Path(source).read_bytes()
        else:
            raise DicomError(f"expected a path, bytes, an open file or a Dataset, not {source!r}")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DicomError(f"cannot be read ({reason}); check the path and its rights") from None
    if not data:
        raise DicomError(f"the file is empty; {_AGAIN}")
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if not any(tag.group in (0x0004, 0x0008, 0x0028, 0x7FE0) for tag in dataset.keys()):
        raise DicomError(f"no DICOM file (it begins with {data[:12]!r}); {_AGAIN}")
    return dataset


def _name(source: Source) -> str:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, Dataset):
        return str(getattr(source, "filename", None) or "<dataset>")
    return str(getattr(source, "name", "<stream>") if hasattr(source, "read") else source)


def _header(dataset: Dataset | Header) -> Header:
    """Read the elements in _TAGS once; one that cannot be parsed becomes its error."""
    if not isinstance(dataset, Dataset):
        return dataset
    present = {int(tag) for tag in dataset.keys()}
    header: dict[str, Any] = {}
    for tag, keyword in _TAGS.items():
        if tag in present:
            try:
                header[keyword] = dataset[tag].value
            except Exception as error:  # any parser's
                header[keyword] = error
    meta = getattr(dataset, "file_meta", None) or {}
    header["big endian"] = meta.get("TransferSyntaxUID") == uid.ExplicitVRBigEndian
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
    if not dataset["PixelData"].value:
        raise DicomError(f"cut: 0 bytes of pixels; {_AGAIN}")
    if not isinstance(header.get("PhotometricInterpretation"), str):
        raise DicomError(f"the header lacks PhotometricInterpretation; {_AGAIN}")
    rows, columns, allocated, stored = (
        _whole(header, keyword) for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored")
    )
    _whole(header, "SamplesPerPixel"), _whole(header, "PixelRepresentation")
    frames = _whole(header, "NumberOfFrames", 1) or 1
    if frames != 1:
        raise DicomError(f"holds {frames} frames; a radiograph has one. Export it as single images")
    if rows < 1 or columns < 1 or rows * columns > max_pixels:
        raise DicomError(
            f"the header says {rows} rows x {columns} columns, expected 1 to {max_pixels} pixels "
            "in all; pass max_pixels if the image really is that large"
        )
    high = _whole(header, "HighBit", stored - 1)
    if not 1 <= stored <= high + 1 <= allocated <= 32:
        raise DicomError(
            f"BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} contradict "
            "each other (PS3.5 8.1.1)"
        )


def _whole(header: Header, keyword: str, default: int | None = None) -> int:
    """Return a whole number of the header, or say that it is missing."""
    value = header.get(keyword)
    if value is None or value == "":
        if default is None:
            raise DicomError(f"the header lacks {keyword}; {_AGAIN}")
        return default
    if isinstance(value, int):
        return value
    raise DicomError(f"{keyword} is {value!r}, expected one whole number; {_AGAIN}")


def _is_palette(header: Header) -> bool:
    return header["PhotometricInterpretation"] == "PALETTE COLOR"


# --- stored values --------------------------------------------------------------------------------


def _decode(dataset: Dataset, header: Header) -> tuple[np.ndarray, uid.UID, str]:
    """Decode, and name the transfer syntax and what was wrong with the one declared."""
    syntax, note = _transfer_syntax(dataset, header)
    stored = _whole(header, "BitsStored")
    shift = _whole(header, "HighBit", stored - 1) + 1 - stored
    in_place = shift == 0 or syntax.is_encapsulated and syntax != uid.RLELossless
    decoder = _decoder(syntax)
    data, cut = _pixel_bytes(dataset, header, syntax)
    values, photometric = _run(decoder, dataset, data, correct_unused_bits=in_place)
    if values.ndim == 2 and _is_palette(header):
        values = apply_color_lut(values, dataset)
    elif values.ndim == 3 and photometric != "RGB":
        raise DicomError(f"color stored as {photometric}; convert it to RGB or gray")
    elif values.ndim == 2 and photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError(f"one sample per pixel, but {photometric}; expected MONOCHROME1 or 2")
    if in_place:
        return values, syntax, note + cut
    values = _shifted(values, shift, stored, signed=header["PixelRepresentation"] == 1)
    return values, syntax, f"{note}{cut}; high bit {stored - 1 + shift}"


def _pixel_bytes(dataset: Dataset, header: Header, syntax: uid.UID) -> tuple[bytes, str]:
    """Return Pixel Data of the length that the header promises, and what was left out of it."""
    data = dataset["PixelData"].value
    if syntax.is_encapsulated:
        frame = _whole_frame(dataset)
        if syntax != uid.RLELossless:
            _check_codestream(frame, header)
        return data, ""
    length, expected = len(data), _expected_length(header)
    if length < expected:
        raise DicomError(f"cut: {length} bytes of pixels, expected {expected}; {_AGAIN}")
    if length <= expected + 1 or header["PhotometricInterpretation"].startswith("YBR"):
        return data, ""
    note = f"; {length - expected} bytes beyond the picture left out"
    return data[: expected + expected % 2], note


def _decoder(syntax: uid.UID) -> Decoder:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DicomError(
            f"transfer syntax {syntax.name} holds no still picture that can be decoded; "
            "convert it, e.g. with gdcmconv --raw"
        ) from None
    if not decoder.is_available:
        raise DicomError(
            f"no decoder for {syntax.name} is installed; "
            "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        )
    return decoder


def _run(
    decoder: Decoder, dataset: Dataset, data: bytes, *, correct_unused_bits: bool
) -> tuple[np.ndarray, str]:
    """Let pydicom's decoder do its work; return values and Photometric Interpretation."""
    options = as_pixel_options(
        dataset, allow_excess_frames=False, correct_unused_bits=correct_unused_bits
    )
    vr = dataset["PixelData"].VR
    options |= {"number_of_frames": 1, "pixel_keyword": "PixelData", "pixel_vr": vr}
    try:
        values, properties = decoder.as_array(data, **options)
    except RuntimeError as error:
        raise DicomError(
            f"no decoder at hand can read the pixel data ({_short(error)}); {_AGAIN}, or install "
            "another decoder, e.g. python-gdcm"
        ) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pylibjpeg-rle's, no subclass of Exception
            raise
        raise DicomError(f"the compressed pixel data are damaged; {_AGAIN}") from error
    return values, properties["photometric_interpretation"]


def _shifted(values: np.ndarray, shift: int, bits: int, *, signed: bool) -> np.ndarray:
    """Cut the pixel out of its cell when High Bit is above Bits Stored - 1 (PS3.5 8.1.1)."""
    values = (values.astype(np.int64) >> shift) & ((1 << bits) - 1)
    if signed:
        values = np.where(values >> (bits - 1), values - (1 << bits), values)
    return values.astype(np.int32)


def _transfer_syntax(dataset: Dataset, header: Header) -> tuple[uid.UID, str]:
    """Find the transfer syntax: as declared where that can be, else from the data themselves."""
    meta = getattr(dataset, "file_meta", None) or {}
    declared = meta.get("TransferSyntaxUID")
    element = dataset["PixelData"]
    encapsulated = element.value[:4] == b"\xfe\xff\x00\xe0"  # an item tag, PS3.5 A.4
    if declared is not None:
        declared = uid.UID(declared)
        if not declared.is_transfer_syntax or declared not in _SYNTAXES:
            raise DicomError(f"transfer syntax {declared} is not known; {_AGAIN}")
    native = declared is not None and not declared.is_encapsulated
    if native and not (encapsulated and element.is_undefined_length):
        return declared, ""
    if encapsulated:
        found = _encapsulated_syntax(dataset, header, declared, native)
    elif declared is not None and len(element.value) < _expected_length(header):
        raise DicomError(f"declared {declared.name}, but the pixel data are not encapsulated")
    else:
        found = _native_syntax(dataset)
    told = f" (the header says {declared.name if declared else 'nothing'})"
    return found, "" if found == declared else told


def _encapsulated_syntax(
    dataset: Dataset, header: Header, declared: uid.UID | None, native: bool
) -> uid.UID:
    """Keep the declared syntax if the codestream can be of it, else take what it looks like."""
    family = _family(_whole_frame(dataset), header)
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


def _whole_frame(dataset: Dataset) -> bytes:
    """Return the codestream of the one frame from its fragments."""
    try:
        return get_frame(dataset.PixelData, 0, number_of_frames=1)
    except Exception as error:
        raise DicomError(f"the compressed pixel data are cut or damaged; {_AGAIN}") from error


def _family(frame: bytes, header: Header) -> tuple[uid.UID, ...]:
    """Tell from its first bytes which transfer syntaxes a codestream can belong to."""
    if frame.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")):
        return _J2K_FAMILY
    if frame.startswith(b"\xff\xd8"):
        return _JPEG_FAMILY.get(_jpeg_frame_header(frame)[0], ())
    # RLE header: the number of segments and the first one's offset, 64 (PS3.5 G.5)
    segments = header["SamplesPerPixel"] * (header["BitsAllocated"] // 8)
    if frame[:8] == segments.to_bytes(4, "little") + (64).to_bytes(4, "little"):
        return (uid.RLELossless,)
    return ()


def _jpeg_frame_header(frame: bytes) -> tuple[int, int, int]:
    """Walk a JPEG or JPEG-LS stream to its frame header: marker, rows, columns (10918-1 B.2.2)."""
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            break
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _JPEG_FAMILY or 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows = int.from_bytes(frame[at + 5 : at + 7], "big")
            return marker, rows, int.from_bytes(frame[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise DicomError(f"the JPEG data have no frame header; {_AGAIN}")


def _check_codestream(frame: bytes, header: Header) -> None:
    """Compare size and end: some decoders fill the missing part of a cut picture with gray."""
    if frame.startswith(b"\xff\xd8"):
        _, rows, columns = _jpeg_frame_header(frame)
    else:
        start = frame.find(b"\xff\x4f\xff\x51")  # SOC and SIZ, ISO/IEC 15444-1 A.5.1
        if start < 0 or len(frame) < start + 24:
            raise DicomError(f"the compressed pixel data do not begin as they must; {_AGAIN}")
        right, below, left, above = (
            int.from_bytes(frame[start + k : start + k + 4], "big") for k in (8, 12, 16, 20)
        )
        rows, columns = below - above, right - left
    if (rows, columns) != (header["Rows"], header["Columns"]):
        raise DicomError(
            f"the header says {header['Rows']} x {header['Columns']}, the compressed picture "
            f"{rows} x {columns}; {_AGAIN}"
        )
    if not frame.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):  # EOI of JPEG, EOC of JPEG 2000
        raise DicomError(f"the compressed picture has no end, the file is cut; {_AGAIN}")


def _expected_length(header: Header) -> int:
    values = header["Rows"] * header["Columns"] * header["SamplesPerPixel"]
    if header["PhotometricInterpretation"] == "YBR_FULL_422":  # two of three, PS3.3 C.7.6.3.1.2
        values = values // 3 * 2
    return (values * header["BitsAllocated"] + 7) // 8


# --- values of interest ---------------------------------------------------------------------------


def _by_table(values: np.ndarray, header: Header, index: int):
    """VOI LUT Sequence (PS3.3 C.11.2.1.1)."""
    tables = header.get("VOILUTSequence")
    if not tables:
        return None
    _check_index(index, len(tables), "VOI tables")
    shown, bits = _lookup(values, tables[index], header, "VOI LUT")
    if np.ptp(shown) == 0:
        raise DicomError("VOI LUT gives one gray for all values")
    return shown / (2**bits - 1), f"VOI table {index + 1} of {len(tables)}, {bits} bits", None


def _by_window(values: np.ndarray, header: Header, index: int):
    """Window Center and Width with their function (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centers, widths = (_numbers(header, k) for k in ("WindowCenter", "WindowWidth"))
    if not centers or not widths:
        return None
    if len(centers) != len(widths):
        raise DicomError(f"{len(centers)} window centers but {len(widths)} widths")
    _check_index(index, len(centers), "windows")
    center, width = centers[index], widths[index]
    if not np.isfinite([center, width]).all():
        raise DicomError(f"window {center:g} / {width:g} is no number")
    function = str(header.get("VOILUTFunction") or "LINEAR")
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
    if not 0 <= low_q < high_q <= 100:
        raise DicomError(f"percentiles must rise from 0 to 100, not {low_q} and {high_q}")
    flat = np.ravel(values)
    weights = np.ones(flat.size, dtype=np.int64) if counts is None else np.ravel(counts())
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


def _lookup(values: np.ndarray, item: Dataset, header: Header, name: str) -> tuple[np.ndarray, int]:
    """Look values up in a table (PS3.3 C.11.1.1 and C.11.2.1.1).

    Not pydicom's: its apply_voi keeps the index in 8 bits where the entries have 8, and its
    apply_modality_lut fails on unsigned values with a negative first entry.
    """
    descriptor = [int(number) for number in item.LUTDescriptor]
    if len(descriptor) != 3:
        raise DicomError(f"{name} Descriptor has {len(descriptor)} values, expected 3")
    entries, first, bits = descriptor[0] or 65536, descriptor[1], descriptor[2]
    if first > 32767 and values.min() < 0:
        first -= 65536  # written as unsigned where the values are signed
    data = item.LUTData
    if isinstance(data, bytes):
        packed = bits <= 8 and len(data) in (entries, entries + 1)
        dtype = "u1" if packed else ">u2" if header.get("big endian") else "<u2"
        table = np.frombuffer(data[: len(data) // 2 * 2], dtype)
    else:
        table = np.atleast_1d(np.asarray(data, dtype=np.int64))
    if len(table) < entries:
        raise DicomError(f"{name} has {len(table)} entries where {entries} are promised")
    table = table[:entries].astype(np.int64)
    bits = max(bits, int(table.max()).bit_length())
    if not 1 <= bits <= 16 or table.min() < 0:
        raise DicomError(f"{name} has entries of {bits} bits, expected 8 to 16")
    where = np.clip(np.rint(values).astype(np.int64) - first, 0, entries - 1)
    return table[where], bits


def _numbers(header: Header, keyword: str) -> list[float]:
    """Return an element's numbers, none if it is missing or empty."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    if isinstance(value, Exception):
        raise DicomError(f"{keyword} cannot be parsed ({value})")
    values = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    try:
        return [float(number) for number in values if number is not None and number != ""]
    except (TypeError, ValueError):
        raise DicomError(f"{keyword} is {value!r}, not a number") from None


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


def _is_padding(grid: np.ndarray, header: Header) -> np.ndarray:
    """Pixel Padding Value, or the range up to its limit, in stored values (PS3.3 C.7.5.1.1.2)."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if value is None or value == "":
        return np.zeros(len(grid), dtype=bool)
    ends = [int(value), int(value if limit is None or limit == "" else limit)]
    if header["PixelRepresentation"] == 1:  # often written as unsigned
        ends = [end - 65536 if end > 32767 else end for end in ends]
    return (grid >= min(ends)) & (grid <= max(ends))


def _spacing(header: Header) -> tuple[tuple[float, float] | None, float]:
    """Height and width of a stored pixel in mm (PS3.3 10.7.1.3: row spacing first), their ratio."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        numbers = _numbers(header, keyword)
        if len(numbers) == 2 and np.isfinite(numbers).all() and min(numbers) > 0:
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
    return a + part * (b - a), (1.0, scale) if axis == 0 else (scale, 1.0)
