"""pictures.py: every way in which a gray picture can be stored, and what is none."""

import errno
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxr_helpers.data import pictures
from cxr_helpers.data.pictures import read_image

GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_gray_whatever_the_mode(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(GRAY).convert("RGB" if mode == "RGBA" else "L").convert(mode).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image, GRAY)
    assert image.dtype == np.uint8 and image.flags.writeable


def test_alpha_is_dropped_and_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(np.dstack([GRAY, GRAY, GRAY, GRAY[::-1]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), GRAY)
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").tolist() == [[255, 0]]


def save16(folder, values, name="a.png"):
    Image.fromarray(np.asarray(values, dtype=np.uint16)).save(folder / name)
    return folder / name


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 15])
def test_fewer_bits_in_a_file_of_sixteen_are_scaled_with_a_warning(tmp_path, depth):
    path = save16(tmp_path, [[0, 2**depth - 1], [2 ** (depth - 1), 0]])
    with pytest.warns(UserWarning, match=f"a.png: 16 bits .* {2**depth - 1}, .*bits={depth},"):
        image = read_image(path)
    assert image.tolist() == [[0, 255], [128, 0]]
    np.testing.assert_array_equal(read_image(str(path), bits=depth), image)


def test_bits_that_are_named_hold_for_every_file_without_a_warning(tmp_path, recwarn):
    assert read_image(save16(tmp_path, [[0, 1023]]), bits=12).tolist() == [[0, 64]]
    assert read_image(save16(tmp_path, [[0, 32768]])).tolist() == [[0, 128]]
    assert read_image(save16(tmp_path, [[0, 0]])).tolist() == [[0, 0]]
    assert read_image(save16(tmp_path, [[0, 65535]]), bits=np.int64(16)).max() == 255
    Image.fromarray(GRAY).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png", bits=12), GRAY)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("bits", "message"),
    [(bits, "bits must be a whole number from 1 to 16") for bits in (0, 17, 12.0, "12", -1)]
    + [(12, "a.png: the value 4096 needs 13 bits, not 12")],
)
def test_bits_that_do_not_fit_are_refused(tmp_path, bits, message):
    with pytest.raises(ValueError, match=message):
        read_image(save16(tmp_path, [[0, 4096]]), bits=bits)


def png_of(folder, values, kind):
    """A PNG of 16 bits a channel, which Pillow does not write: 2 is RGB, 4 gray with alpha."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    values = np.asarray(values, dtype=">u2")
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    whole = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + whole)
    return folder / "a.png"


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_color_of_sixteen_bits_is_taken_only_where_it_fills_them(tmp_path, kind, channels):
    ramp = np.repeat(GRAY[:, :, None], channels, axis=2).astype(np.uint16)
    image = read_image(png_of(tmp_path, ramp * 257, kind))
    np.testing.assert_array_equal(image, GRAY)
    dark = ramp * 16  # of 12 bits
    with pytest.raises(ValueError, match="a.png: color or alpha of 16 bits"):
        read_image(png_of(tmp_path, dark, kind))


def test_color_is_told_and_a_gray_jpeg_in_rgb_is_none(tmp_path, recwarn):
    Image.fromarray(GRAY).convert("RGB").save(tmp_path / "a.jpg")
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - GRAY).max() < 16
    assert not recwarn.list
    rgb = np.repeat(GRAY[:, :, None], 3, axis=2)
    rgb[0, 0] = [255, 0, 0]
    Image.fromarray(rgb).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="a.png: 0.4% of the pixels are in color"):
        assert (read_image(tmp_path / "a.png")[1:] == GRAY[1:]).all()


@pytest.mark.parametrize("values", [GRAY, GRAY.astype(np.uint16) * 257], ids=["8", "16"])
def test_a_picture_stands_upright_as_its_exif_tag_says(tmp_path, values):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(GRAY, -1))
    Image.fromarray(values).save(tmp_path / "a.png", exif=b"Exif\0\0no tiff at all")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), GRAY)


def test_what_is_no_gray_picture_is_named(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.jpg")
    Image.fromarray(np.ones((4, 4), np.int32)).save(tmp_path / "a.tiff")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    for name, words in {
        "a.jpg": "stored as CMYK",
        "a.tiff": "stored as I",
        "a.dcm": "but a DICOM file; read it with read_dicom",
        "a.zip": "but an archive; unpack it",
    }.items():
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            read_image(tmp_path / name)


def test_a_failing_disk_is_no_damaged_download(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pictures.Image, "open", fail)
    with pytest.raises(ValueError, match="Too many open files") as caught:
        read_image(tmp_path / "a.png")
    assert "download" not in str(caught.value)
