"""Decode the stored values of a DICOM file, by its transfer syntax or by what the data tell.

`decode` gives the one frame with the bits that are the pixel's. What a header says wrongly and the
data tell (transfer syntax, offset tables, end marks) is mended and told; a picture that is cut is
refused, for the decoders fill it up without a word.

Section numbers are those of https://dicom.nema.org/medical/dicom/current.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pydicom (>=3; compressed files also a decoder, see `_PACKAGES` with their licenses).
Goes with: dicom_header.py.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.decoders.base import Decoder

from .dicom_header import (
    AGAIN,
    DicomError,
    Layout,
    pixel_data,
    short,
)

_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_FAMILY = {  # start-of-frame marker (ISO/IEC 10918-1 table B.1) -> transfer syntaxes
    0xC0: (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
    0xC1: (uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit),
    0xC3: (uid.JPEGLosslessSV1, uid.JPEGLossless),
    0xF7: _JPEG_LS,
}
_J2K_FAMILY = (
    uid.JPEG2000,
    uid.JPEG2000Lossless,
    uid.HTJ2K,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
)
_HTJ2K = _J2K_FAMILY[2:]
_LOSSY = (  # or may be
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
)
_SYNTAXES = frozenset(uid.AllTransferSyntaxes)
_PACKAGES = (  # pydicom's name of the plugin, what to install with its license, what it cannot
    ("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg (MIT)", (*_JPEG_LS, *_JPEG)),
    ("pyjpegls", "pyjpegls (MIT)", (*_J2K_FAMILY, *_JPEG)),
    ("gdcm", "python-gdcm (BSD)", _HTJ2K),
    (
        "pylibjpeg",
        "pylibjpeg (MIT) pylibjpeg-libjpeg (GPL-3.0; the extra cxr-helpers[gpl])",
        _J2K_FAMILY,
    ),
)
_ITEM = b"\xfe\xff\x00\xe0"  # PS3.5 A.4
_BEGINNING = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|[\x01-\x0f]\0\0\0\x40\0\0\0")
_END_MARK = b"\xff\xd9"  # EOI of JPEG, EOC of JPEG 2000
_NO_END = "; the compressed picture has no end mark"
_CUT = f"the compressed picture is cut: it has no end; {AGAIN}"


def decode(dataset: Dataset, layout: Layout) -> tuple[np.ndarray, uid.UID, str]:
    """Decode, and name the transfer syntax and what was wrong with the one declared.

    >>> from cxr_helpers.data.dicom_header import parsed, read_header, read_layout
    >>> from pydicom.data import get_testdata_file
    >>> dataset, _ = parsed(get_testdata_file("CT_small.dcm"))
    >>> layout = read_layout(dataset, read_header(dataset), max_pixels=10**8)
    >>> values, syntax, note = decode(dataset, layout)
    >>> values.shape, syntax.name, note
    ((128, 128), 'Explicit VR Little Endian', '')
    """
    data = pixel_data(dataset)
    syntax, note = _transfer_syntax(dataset, data, layout)
    decoder = _decoder(syntax)
    unpack = _decompressed if syntax.is_encapsulated else _native
    values, photometric, bits, left_out = unpack(decoder, data, layout, dataset["PixelData"].VR)
    values, cleared = _own_bits(values, bits, layout, lossy=syntax in _LOSSY)
    if values.ndim == 2 and layout.photometric == "PALETTE COLOR":
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


def _native(
    decoder: Decoder, data: bytes, layout: Layout, vr: str
) -> tuple[np.ndarray, str, int, str]:
    """Decode as many bytes as the header promises: values, color, bits of a value, a word."""
    length, expected, note = len(data), layout.n_bytes, ""
    if length < expected:
        raise DicomError(f"cut: {length} bytes of pixels, expected {expected}; {AGAIN}")
    if length > expected + 1 and not layout.photometric.startswith("YBR"):
        note = f"; {length - expected} bytes beyond the picture left out"
        data = data[: expected + expected % 2]
    if layout.samples == 3 and layout.planar not in (0, 1):
        raise DicomError("PlanarConfiguration must be 0 or 1; export the file again")
    bits = layout.allocated
    return *_run(decoder, data, layout, bits, bits, vr), bits, note


def _own_bits(
    values: np.ndarray, bits: int, layout: Layout, *, lossy: bool
) -> tuple[np.ndarray, str]:
    """Keep the bits of each cell that are the pixel's (PS3.5 8.1.1), and say what else was in it.

    Args:
        values: of `bits` bits as decoded: more than Bits Stored if overlays or junk lie above.
        bits: of a cell.
        layout: with Bits Stored, High Bit, Pixel Representation.
        lossy: the loss may carry values beyond Bits Stored; without their top bit they would turn
            from white to black, so they are kept.
    """
    stored, signed, note = layout.stored, layout.signed, layout.note
    shift = layout.high + 1 - stored if layout.high < bits else 0
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
    note += f"; high bit {layout.high}" if shift else ""
    note += f"; bits above the {stored} Bits Stored left out of {junk} pixels" if junk else ""
    return own.astype(np.int32 if signed or stored < 32 else np.uint32), note


# --- transfer syntax ------------------------------------------------------------------------------


def _transfer_syntax(dataset: Dataset, data: bytes, layout: Layout) -> tuple[uid.UID, str]:
    """Find the transfer syntax: as declared where that can be, else from the data themselves."""
    declared = _declared_syntax(dataset)
    encapsulated = data.startswith(_ITEM)
    native = declared is not None and not declared.is_encapsulated
    if native and not (encapsulated and dataset["PixelData"].is_undefined_length):
        return declared, ""
    if encapsulated:
        found = _encapsulated_syntax(data, layout, declared, native)
    elif declared is not None and len(data) < 8:
        raise DicomError(f"the compressed pixel data are cut: {len(data)} bytes are left; {AGAIN}")
    elif declared is not None and len(data) < layout.n_bytes:
        raise DicomError(f"declared {declared.name}, but the pixel data are not encapsulated")
    else:
        found = _native_syntax(dataset)
    told = f" (the header says {declared.name if declared else 'nothing'})"
    return found, "" if found == declared else told


def _declared_syntax(dataset: Dataset) -> uid.UID | None:
    meta = getattr(dataset, "file_meta", None) or {}
    declared = str(meta.get("TransferSyntaxUID") or "").strip(" \0")
    if declared and declared not in _SYNTAXES:
        raise DicomError(f"transfer syntax {declared} is not known; {AGAIN}")
    return uid.UID(declared) if declared else None


def _encapsulated_syntax(
    data: bytes, layout: Layout, declared: uid.UID | None, native: bool
) -> uid.UID:
    """Keep the declared syntax if the codestream can be of it, else take what it looks like."""
    family = _family(_frame(data)[0], layout)
    if declared in family or not family and declared is not None and not native:
        return declared
    if not family:
        raise DicomError("no transfer syntax in the layout, and the pixel data tell none")
    return family[0]


def _family(frame: bytes, layout: Layout) -> tuple[uid.UID, ...]:
    """Tell from its first bytes which transfer syntaxes a codestream can belong to."""
    if frame.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")):
        return _J2K_FAMILY
    if frame.startswith(b"\xff\xd8"):
        try:
            return _JPEG_FAMILY.get(_jpeg_frame_header(frame)[0], ())
        except DicomError:
            return ()
    # RLE header: the number of segments and the first one's offset, 64 (PS3.5 G.5)
    segments = layout.samples * (layout.allocated // 8)
    if frame[:8] == segments.to_bytes(4, "little") + (64).to_bytes(4, "little"):
        return (uid.RLELossless,)
    return ()


def _native_syntax(dataset: Dataset) -> uid.UID:
    """Tell by what pydicom found when it parsed the elements (PS3.5 A.1 to A.3)."""
    implicit, little = getattr(dataset, "original_encoding", (None, None))
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if little is False else uid.ExplicitVRLittleEndian


# --- decoders -------------------------------------------------------------------------------------


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
    decoder: Decoder, data: bytes, layout: Layout, allocated: int, bits: int, vr: str
) -> tuple[np.ndarray, str]:
    """Let pydicom's decoder do its work; return values and Photometric Interpretation."""
    options = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": int(layout.planar == 1),
        "pixel_representation": int(layout.signed),
        "bits_allocated": allocated,
        "bits_stored": bits,
        "number_of_frames": 1,
        "allow_excess_frames": False,
        "correct_unused_bits": False,  # _own_bits does, and tells
        "pixel_keyword": "PixelData",
        "pixel_vr": vr,
    }
    # python-gdcm ends the whole process at some damaged JPEG; Pillow raises an error.
    at_hand = decoder.available_plugins
    plugin = "pillow" if "pillow" in at_hand and "pylibjpeg" not in at_hand else ""
    try:
        values, properties = decoder.as_array(data, decoding_plugin=plugin, **options)
    except RuntimeError as error:
        other = _installable(decoder)
        raise DicomError(
            f"no decoder at hand can read the pixel data ({short(error)}); {AGAIN}"
            + (f", or install another decoder: {other}" if other else "")
        ) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pylibjpeg-rle's, no subclass of Exception
            raise
        raise DicomError(f"the compressed pixel data are damaged; {AGAIN}") from error
    return values, properties["photometric_interpretation"]


# --- compressed pictures --------------------------------------------------------------------------


def _decompressed(
    decoder: Decoder, data: bytes, layout: Layout, vr: str
) -> tuple[np.ndarray, str, int, str]:
    """Decode the one frame: values, color, bits of a value, a word."""
    frame, missing = _frame(data)
    try:
        if not frame:
            raise DicomError(f"the compressed pixel data hold no picture; {AGAIN}")
        if decoder.UID == uid.RLELossless:
            bits = layout.allocated
            return *_decoded_frame(decoder, frame, layout, bits, vr), bits, ""
        stream = _checked_stream(frame, layout)
        if stream.end is None:
            decoded, note = _without_end(decoder, frame, layout, stream.bits, vr)
        else:
            whole, rest = frame[: stream.end], frame[stream.end :].strip(b"\0\xff")
            note = f"; {len(rest)} bytes after the compressed picture left out" if rest else ""
            if not whole.endswith(_END_MARK):
                whole, note = whole + _END_MARK, _NO_END
            decoded = _decoded_frame(decoder, whole, layout, stream.bits, vr)
    except DicomError as error:
        if missing:
            told = f"{missing} bytes fewer than promised"
            raise DicomError(f"the compressed pixel data are cut, {told}: {error}") from error
        raise
    return *decoded, stream.bits, note


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


def _decoded_frame(
    decoder: Decoder, frame: bytes, layout: Layout, bits: int, vr: str
) -> tuple[np.ndarray, str]:
    """Decode one frame, encapsulated anew: the file's offset tables may be wrong."""
    allocated = bits if bits % 8 == 0 and bits != 24 else 8 if bits < 8 else 16 if bits < 16 else 32
    return _run(decoder, encapsulate([frame], has_bot=False), layout, allocated, bits, vr)


def _without_end(
    decoder: Decoder, frame: bytes, layout: Layout, bits: int, vr: str
) -> tuple[tuple[np.ndarray, str], str]:
    """Decode a stream without end mark if it is whole: what follows must not change the picture.

    Decoders fill up a cut picture without a word, with what follows or with gray.
    """
    frame = frame.rstrip(b"\0")  # zeros stand where a file was not written to its end
    if frame.endswith(b"\xff"):  # with what comes next it would be a mark; with a zero it is data
        frame += b"\0"
    try:
        first, *others = (
            _decoded_frame(decoder, frame + filler * 4096 + _END_MARK, layout, bits, vr)
            for filler in (b"\x00", b"\xfe", b"\x55")
        )
    except DicomError as error:
        other = _installable(decoder)
        advice = f"; if it is whole, another decoder may read it: {other}" if other else ""
        raise DicomError(_CUT + advice) from error
    if not all(np.array_equal(first[0], other[0]) for other in others):
        raise DicomError(_CUT)
    return first, _NO_END


class _Stream(NamedTuple):
    """What a compressed picture says of itself; `end` is where it ends, or None."""

    rows: int
    columns: int
    samples: int
    bits: int
    end: int | None


def _checked_stream(frame: bytes, layout: Layout) -> _Stream:
    """Compare what the compressed picture says of itself with the header."""
    stream = _jpeg_stream(frame) if frame.startswith(b"\xff\xd8") else _j2k_stream(frame)
    for what in ("rows", "columns", "samples"):
        said, found = getattr(layout, what), getattr(stream, what)
        if said != found:
            raise DicomError(
                f"the header says {layout.rows} x {layout.columns}, the compressed picture "
                f"{stream.rows} x {stream.columns} ({said} and {found} {what}); {AGAIN}"
            )
    if stream.bits > layout.allocated:
        raise DicomError(
            f"the header says {layout.allocated} Bits Allocated, the compressed picture has "
            f"{stream.bits}; {AGAIN}"
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
    raise DicomError(f"the JPEG data have no frame header; {AGAIN}")


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
        raise DicomError(f"the compressed pixel data do not begin as they must; {AGAIN}")
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
