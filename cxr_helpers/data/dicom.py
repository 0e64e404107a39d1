"""Read a radiograph from a DICOM file: stored values to a gray picture, each step named.

The way of PS3.3 C.11 and PS3.4 N.2: decode, mask the padding, modality transform (rescale or
table), values of interest (table or window), polarity. `read_dicom` goes it all the way and lists
its steps; `load_dataset`, `stored_values`, `modality_values` and `display_values` are the steps.
Where pydicom has a function it is used; the rest cites the section of the standard.

Section numbers are those of https://dicom.nema.org/medical/dicom/current.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pydicom (>=3; compressed files also a decoder, see dicom_decoding.py).
Goes with: dicom_decoding.py, dicom_header.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.sequence import Sequence

from .dicom_decoding import decode
from .dicom_header import (
    DicomError,
    Header,
    Layout,
    Source,
    UnreadableError,
    as_number,
    named,
    parsed,
    read_header,
    read_layout,
    reason_of,
    short,
    values_of,
    whole_number,
)

Voi = Literal["auto", "lut", "window", "percentiles"]
_LUMA = np.array([0.2990, 0.5870, 0.1140])  # Y of YBR_FULL, PS3.3 C.7.6.3.1.2


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
        pixel_aspect: height over width of a pixel; the steps say so where it is not 1. Resizing
            the picture to a height `pixel_aspect` times as large makes its pixels square.
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
    padding: float


def read_dicom(
    source: Source,
    *,
    voi: Voi = "auto",
    index: int = 0,
    percentiles: tuple[float, float] = (0.5, 99.5),
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
    with named(source):
        _check_choice(voi, index, percentiles)
        if not isinstance(max_pixels, Integral):
            raise DicomError(f"max_pixels must be a whole number, not {max_pixels!r}")
        dataset, note = parsed(source)
        header = read_header(dataset)
        layout = read_layout(dataset, header, max_pixels)
        stored, syntax, more = decode(dataset, layout)
        steps = [f"decoded {syntax.name}{note}{more}"]
        choice = (voi, index, percentiles)
        if stored.ndim == 3:
            pixels, kind, window, padding = _luma(stored, layout, steps), "color", None, 0.0
        else:
            pixels, kind, window, padding = _monochrome(stored, header, layout, steps, choice)
        spacing, aspect = _spacing(header, steps)
    return DicomImage(
        pixels=pixels,
        steps=tuple(steps),
        voi=kind,
        window=window,
        photometric=layout.photometric,
        bits_stored=layout.stored,
        transfer_syntax=syntax.name,
        spacing_mm=spacing,
        pixel_aspect=aspect,
        padding=padding,
    )


def load_dataset(source: Source) -> Dataset:
    """Parse the file, with or without preamble and file meta information.

    Raises:
        DicomError: no such file, not readable, or no DICOM in it.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> load_dataset(get_testdata_file('CT_small.dcm')).Modality
        'CT'
    """
    with named(source):
        return parsed(source)[0]


def stored_values(dataset: Source) -> np.ndarray:
    """Decode the one frame.

    Args:
        dataset: with the Image Pixel module and Pixel Data, or whatever `read_dicom` takes.

    Returns:
        Integers (H, W), or (H, W, 3) of RGB for a color image, without the bits that are not
        the pixel's (PS3.5 8.1.1: Bits Stored of them, the top one at High Bit).

    Raises:
        DicomError: no, short or damaged pixel data, several frames, or a header in contradiction.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> values = stored_values(get_testdata_file('CT_small.dcm'))
        >>> values.shape, values.dtype
        ((128, 128), dtype('int16'))
    """
    with named(dataset):
        dataset, _ = parsed(dataset)
        return decode(dataset, read_layout(dataset, read_header(dataset), max_pixels=2**32))[0]


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
    header, values = read_header(dataset), _checked_values(values)
    if items := _items(header, "ModalityLUTSequence"):
        table, _, promised = _lookup(values, items[0], header, "Modality LUT")
        return table, f"modality table of {promised} bits"
    slopes, intercepts = (values_of(header, k) for k in ("RescaleSlope", "RescaleIntercept"))
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

    Example:
        >>> dataset = Dataset()
        >>> dataset.WindowCenter, dataset.WindowWidth = 50, 101
        >>> shown, kind, step, window = display_values(np.array([-10, 50, 200]), dataset)
        >>> shown.tolist(), kind, window
        ([0.0, 0.505, 1.0], 'window', (50.0, 101.0))
    """
    _check_choice(voi, index, percentiles)
    header, values = read_header(dataset), _checked_values(values)
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


def _luma(stored: np.ndarray, layout: Layout, steps: list[str]) -> np.ndarray:
    """From RGB to gray (PS3.3 C.7.6.3.1.2); adds to `steps`."""
    bits = 8 * stored.dtype.itemsize if layout.samples == 1 else layout.stored  # of a palette
    steps.append("color to gray by luma")
    return np.clip(stored @ _LUMA / (2**bits - 1), 0, 1).astype(np.float32)


def _monochrome(
    stored: np.ndarray,
    header: Header,
    layout: Layout,
    steps: list[str],
    choice: tuple[Voi, int, tuple[float, float]],
) -> tuple[np.ndarray, str, tuple[float, float] | None, float]:
    """From stored values to gray; adds to `steps`."""
    # Every step maps one value to one value: do it once per value, not once per pixel.
    grid, where, first = _distinct(stored)

    def counts() -> np.ndarray:
        return np.bincount(where.ravel())[first:]

    padded, padding = _is_padding(grid, header, layout, steps), 0.0
    if padded.all():
        raise DicomError("every pixel is padding; the file holds no picture")
    if padded.any():
        padding = float(counts()[padded].sum() / stored.size)
    if padding:
        steps.append(f"padding masked: {padding:.1%} of the pixels")
    voi, index, percentiles = choice
    try:
        values, step = modality_values(grid[~padded], header)
    except UnreadableError as error:
        if voi in ("lut", "window"):
            raise DicomError(f"{error}, so the {voi} has no scale; pass voi='auto'") from error
        values, voi = grid[~padded], "percentiles"
        step = f"modality transform, and with it the VOI, passed over: {error}"
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
    if layout.photometric == "MONOCHROME1":
        shown = 1 - shown  # the lowest value is white, PS3.3 C.7.6.3.1.2
        steps.append("MONOCHROME1: inverted")
    curve = np.zeros(first + len(grid), dtype=np.float32)
    curve[first:][~padded] = shown
    return curve[where], kind, window, padding


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


def _distinct(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the range of values, each pixel's index, and the index of the first value."""
    low, high = int(stored.min()), int(stored.max())
    if high - low >= 1 << 17:
        grid, where = np.unique(stored, return_inverse=True)
        return grid.astype(np.int64), where.reshape(stored.shape), 0
    if 0 <= low < 1 << 16:  # the values can serve as indices as they are
        return np.arange(low, high + 1), stored, low
    return np.arange(low, high + 1), stored.astype(np.int32) - low, 0


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
    centers, widths = (values_of(header, k) for k in ("WindowCenter", "WindowWidth"))
    if not centers or not widths:
        return None
    if len(centers) != len(widths):
        raise DicomError(f"{len(centers)} window centers but {len(widths)} widths")
    _check_index(index, len(centers), "windows")
    center = as_number(centers[index], "WindowCenter")
    width = as_number(widths[index], "WindowWidth")
    if not np.isfinite([center, width]).all():
        raise DicomError(f"window {center:g} / {width:g} is no number")
    function = str((values_of(header, "VOILUTFunction") or ["LINEAR"])[0]).strip(" \0").upper()
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
        reason = f"{type(error).__name__}: {short(error)}"
        raise UnreadableError(f"{name} cannot be parsed ({reason})") from error
    entries = entries % 65536 or 65536
    if bits <= 8 and len(words) == (entries + 1) // 2:  # packed, the lower byte first
        words = words.astype("<u2").view(np.uint8)
    if len(words) < entries:
        raise UnreadableError(f"{name} has {len(words)} entries where {entries} are promised")
    return words[:entries].astype(np.int64), first, bits


def _items(header: Header, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, none if it is missing or empty."""
    value = header.get(keyword)
    if value is None or value == "" or isinstance(value, Sequence) and not len(value):
        return []
    if not isinstance(value, Sequence):
        raise UnreadableError(f"{keyword} cannot be parsed ({short(value)})")
    return value


def _number(header: Header, keyword: str, default: float) -> float:
    values = values_of(header, keyword)
    if len(values) > 1:
        raise UnreadableError(f"{keyword} is {short(values)}, expected one number")
    return as_number(values[0], keyword) if values else default


def _check_index(index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        raise DicomError(f"the file has {count} {what}, index {index} is none of them")


# --- padding and spacing --------------------------------------------------------------------------


def _is_padding(grid: np.ndarray, header: Header, layout: Layout, steps: list[str]) -> np.ndarray:
    """Pixel Padding Value, or the range up to its limit, in stored values (PS3.3 C.7.5.1.1.2).

    What cannot be read is passed over with a word in `steps`.
    """
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            if values_of(header, keyword):
                ends.append(_padding_end(whole_number(header, keyword), layout))
        except DicomError as error:
            steps.append(f"padding passed over: {reason_of(error)}")
        if not ends:
            return np.zeros(len(grid), dtype=bool)
    return (grid >= min(ends)) & (grid <= max(ends))


def _padding_end(end: int, layout: Layout) -> int:
    """Read the number as the pixels are: signed ones are often written as unsigned."""
    if not layout.signed:
        return end + (1 << layout.allocated) if end < 0 else end
    for bits in (layout.allocated, 16):
        if 1 << (bits - 1) <= end < 1 << bits:
            return end - (1 << bits)
    return end


def _spacing(header: Header, steps: list[str]) -> tuple[tuple[float, float] | None, float]:
    """Height and width of a stored pixel in mm (PS3.3 10.7.1.3: row spacing first), their ratio.

    What cannot be read is passed over with a word in `steps`, and what is not square gets one.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        try:
            numbers = [as_number(value, keyword) for value in values_of(header, keyword)]
            if not numbers:
                continue
            if len(numbers) != 2 or not np.isfinite(numbers).all() or min(numbers) <= 0:
                told = short(header[keyword])
                raise DicomError(f"{keyword} is {told}, expected two numbers above 0")
        except DicomError as error:
            steps.append(f"spacing passed over: {error}")
            continue
        height, width = numbers
        if abs(height / width - 1) > 0.01:
            steps.append(f"pixels {height / width:.3g} times as high as wide")
        return (None if keyword == "PixelAspectRatio" else (height, width)), height / width
    return None, 1.0
