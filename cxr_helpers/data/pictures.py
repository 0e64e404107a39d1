"""A radiograph from a PNG or JPEG file: gray values of 8 bits, upright, whatever was stored.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, Pillow.
"""

from __future__ import annotations

import os
import warnings
import zlib
from numbers import Integral

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_MAX_PIXELS = 200_000_000
_GRAY_TOLERANCE = 16  # channels of a gray JPEG may differ by some levels


def read_image(path: str | os.PathLike[str], *, bits: int | None = None) -> np.ndarray:
    """Read one radiograph as gray values, upright as its EXIF tag says.

    RGB and RGBA become gray (their channels are equal in NIH's files; alpha is dropped), 16 bits
    are scaled to 8.

    Args:
        path: a PNG (or JPEG) file.
        bits: how many bits of a file of 16 hold the values, 1 to 16; 12 for most X-ray detectors.
            None takes 16 where the largest value is above 32767, and else the fewest bits that
            hold it, with a warning: two files of one detector may then be scaled differently.
            Files of 8 bits are taken as they are.

    Returns:
        uint8 (H, W), 0 to 255, bright = dense.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read as one picture, or a value needs more than `bits`; the
            message names it and the remedy.

    Warns:
        UserWarning: `bits` was chosen; or the picture is in color, whose luminance is taken.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (2, 1), (128, 128, 128)).save(f"{folder}/a.png")
    ...     read_image(f"{folder}/a.png").tolist()
    [[128, 128]]
    """
    if bits is not None and not (isinstance(bits, Integral) and 1 <= bits <= 16):
        raise ValueError(f"bits must be a whole number from 1 to 16, or None, not {bits!r}")
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise ValueError(f"{path}: {width} x {height} pixels is no radiograph")
            if getattr(image, "n_frames", 1) != 1:
                raise ValueError(f"{path}: holds {image.n_frames} pictures, expected one")
            wide = image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")
            if not wide and image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
                raise ValueError(
                    f"{path}: stored as {image.mode}; expected gray or RGB of 8 or 16 bits"
                )
            cut = any(";16" in str(tile[3]) for tile in image.tile) and not wide
            image.load()
            upright = _upright(image)
            return _scaled(upright, path, bits) if wide else _luminance(upright, path, cut)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except (PermissionError, IsADirectoryError) as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check its rights") from error
    except UnidentifiedImageError:
        raise ValueError(f"{path}: no picture{_what_else(path)}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: too large for a radiograph ({error})") from error
    except (OSError, SyntaxError, EOFError, zlib.error) as error:
        remedy = "" if getattr(error, "errno", None) else "; download it again"
        raise ValueError(f"{path}: cannot be read ({error}){remedy}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return image


def _scaled(image: Image.Image, path: str | os.PathLike[str], bits: int | None) -> np.ndarray:
    """Values of 16 bits as uint8, by the depth that holds them."""
    values = np.asarray(image).astype(np.uint32)
    high = int(values.max())
    if bits is None:
        bits = high.bit_length() or 16
        if bits < 16:
            warnings.warn(
                f"{path}: 16 bits whose largest value is {high}, so taken as {bits} bits; say "
                f"bits={bits}, or how many the detector gives, so that all files are scaled alike",
                stacklevel=3,
            )
    if high.bit_length() > bits:
        raise ValueError(f"{path}: the value {high} needs {high.bit_length()} bits, not {bits}")
    full = 2**bits - 1
    return ((values * 255 + full // 2) // full).astype(np.uint8)


def _luminance(image: Image.Image, path: str | os.PathLike[str], cut: bool) -> np.ndarray:
    """Gray values of 8 bits; `cut` says that Pillow kept only the upper 8 of 16 bits."""
    if image.mode == "L":
        return np.array(image)
    rgb = np.asarray(image.convert("RGB"))
    if cut and rgb.max() < 128:
        raise ValueError(
            f"{path}: color or alpha of 16 bits that does not fill them; save it as gray of 16 bits"
        )
    colored = np.ptp(rgb, axis=2) > _GRAY_TOLERANCE
    if colored.any():
        warnings.warn(
            f"{path}: {100 * colored.mean():.1f}% of the pixels are in color; their luminance is "
            "taken, which is right for marks on a radiograph and wrong for a map of colors",
            stacklevel=3,
        )
    return np.array(image.convert("RGB").convert("L"))


def _what_else(path: str | os.PathLike[str]) -> str:
    """What a file is that is no picture, where its first bytes tell."""
    with open(path, "rb") as stream:
        start = stream.read(132)
    if start[128:] == b"DICM":
        return " but a DICOM file; read it with read_dicom"
    if start.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        return " but an archive; unpack it"
    return "; download or unpack it again"
