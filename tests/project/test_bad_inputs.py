"""What the world has instead of the file: each case ends in an error that names file and remedy.

The table is checked for four things: the error is one of ours, raised in our own code and not
deep in a library; it names the file (or the value); it says what is wrong in words that the case
expects; it comes at once.
"""

import gzip
import io
import os
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import gradient, lut_item, make_dataset, to_bytes
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from tiny_root import NIH_BOX_HEADER, NIH_HEADER, VINDR_HEADER

from cxr_helpers.data import nih, vindr
from cxr_helpers.data.dicom import DicomError, read_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

Make = Callable[[Path], Path]
NOBODY = 65534  # user without rights
PATIENCE = 20  # seconds, on a busy machine, after which a reader counts as hanging


def problems(call: Callable[[], object], *words: str, file: Path | None = None) -> list[str]:
    """Run what must fail, and say what is wrong with how it does; nothing if all is well."""
    start = time.monotonic()
    try:
        call()
    except (ValueError, FileNotFoundError, KeyError) as error:
        message, frames = str(error), traceback.extract_tb(error.__traceback__)
    else:
        return ["no error at all"]
    found = [f"{word!r} is not in {message!r}" for word in words if word not in message]
    if file is not None and str(file) not in message:
        found.append(f"{message!r} does not name the file")
    if f"{os.sep}cxr_helpers{os.sep}" not in frames[-1].filename:
        found.append(f"raised in {frames[-1].filename}")
    if time.monotonic() - start > PATIENCE:
        found.append(f"took {time.monotonic() - start:.0f} seconds")
    return found


def test_problems_finds_what_it_looks_for():
    def foreign():
        int("x")

    assert problems(lambda: None) == ["no error at all"]
    assert len(problems(foreign, "remedy", file=Path("a.csv"))) == 3


def write(name: str, content: bytes | str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def missing(folder: Path) -> Path:
    return folder / "nowhere.csv"


def directory(folder: Path) -> Path:
    (folder / "folder.csv").mkdir()
    return folder / "folder.csv"


def loop(folder: Path) -> Path:
    try:
        (folder / "a.csv").symlink_to(folder / "b.csv")
        (folder / "b.csv").symlink_to(folder / "a.csv")
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")
    return folder / "a.csv"


def forbidden(folder: Path) -> Path:
    path = write("forbidden.csv", "a,b\n1,2\n")(folder)
    path.chmod(0)
    return path


def forbidden_folder(folder: Path) -> Path:
    path = directory(folder)
    path.chmod(0)
    return path


@pytest.fixture
def tmp_path(request, tmp_path):
    """A folder; for what is about missing rights that of an ordinary user, whom the test runs as.

    Root may read everything, so that as root these cases would show nothing.
    """
    if "forbidden" not in request.node.name or getattr(os, "geteuid", lambda: 1)() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


# --- tables: every reader with every kind of wrong file -------------------------------------------

ENTRIES = (
    f"{NIH_HEADER}\n"
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.139\n"
    "00000001_001.png,No Finding,1,1,59,M,AP,2682,2749,0.143,0.139\n"
)
BOXES = (
    f"{NIH_BOX_HEADER}\n"
    "00000001_000.png,Atelectasis,225.08,547.01,86.77,79.18,,,\n"
    "00000001_001.png,Infiltrate,10,20,30,40,,,\n"
)
REREADS = (
    "Image Index,Fracture,Pneumothorax,Airspace opacity,Nodule or mass\n"
    "00000001_000.png,NO,YES,NO,NO\n"
)
READINGS = f"{VINDR_HEADER}\na,Cardiomegaly,3,R9,691,1375,1653,1831\nb,No finding,14,R1,,,,\n"
IMAGE_LABELS = "image_id,rad_id,Edema,Nodule/Mass,No finding\na,R9,0,1,0\nb,R9,0,0,1\n"

READERS = {
    "nih entries": (nih.read_entries, ENTRIES),
    "nih boxes": (nih.read_boxes, BOXES),
    "nih rereads": (nih.read_rereads, REREADS),
    "vindr readings": (vindr.read_readings, READINGS),
    "vindr image labels": (vindr.read_image_labels, IMAGE_LABELS),
}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(40)


def without_last_column(good: str) -> str:
    width = len(good.splitlines()[0].rstrip(",").split(","))
    return "".join(",".join(line.split(",")[: width - 1]) + "\n" for line in good.splitlines())


def first_column_twice(good: str) -> str:
    return "".join(f"{line.split(',')[0]},{line}\n" for line in good.splitlines())


# (what makes the file, words that the message must hold)
NO_FILES: dict[str, tuple[Make, str]] = {
    "missing": (missing, "no such file"),
    "a folder": (directory, "cannot be read"),
    "a symlink loop": (loop, "cannot be read"),
    "forbidden": (forbidden, "cannot be read"),
}
# (what becomes of the good table, words that the message must hold)
WRONG_FILES: dict[str, tuple[Callable[[str], bytes | str], tuple[str, ...]]] = {
    "empty": (lambda good: "", ("empty", "download it again")),
    "blank": (lambda good: " \n\n", ("empty",)),
    "header only": (lambda good: good.splitlines()[0] + "\n", ("without rows",)),
    "a picture": (lambda good: PNG, ("no UTF-8 text",)),
    "a zip archive": (lambda good: b"PK\x03\x04" + bytes(30), ("zip", "unpack")),
    "a web page": (lambda good: "<!DOCTYPE html><p>log in", ("web page",)),
    "UTF-16": (lambda good: good.encode("utf-16"), ("save the table as UTF-8",)),
    "Latin-1": (lambda good: good.encode() + "é".encode("latin-1"), ("no UTF-8", "line ")),
    "semicolons": (lambda good: good.replace(",", ";"), ("';'",)),
    "tabs": (lambda good: good.replace(",", "\t"), ("'\\t'",)),
    "no header": (lambda good: good.split("\n", 1)[1], ("column",)),
    "a column gone": (without_last_column, ("column",)),
    "a column twice": (first_column_twice, ()),  # one reader names the column, others count it
    "cut in a row": (
        lambda good: good[: -len(good.splitlines()[-1]) // 2],
        ("fields where the header has",),
    ),
    "a row too long": (
        lambda good: good + good.splitlines()[-1] + ",x,y,z,x,y,z\n",
        ("fields where the header has", "line "),
    ),
    "a quote left open": (lambda good: good + '"a,b\n', ("not CSV",)),
    "a cut gzip": (lambda good: gzip.compress(good.encode())[:-20], ("gzip file is damaged",)),
    "a damaged gzip": (
        lambda good: gzip.compress(good.encode())[:15] + bytes(50),
        ("gzip file is damaged",),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_the_good_tables_are_good(reader, tmp_path):
    read, good = READERS[reader]
    found = read(write("good.csv", good)(tmp_path))
    assert len(found.readings if reader == "vindr readings" else found) == good.count("\n") - 1


@pytest.mark.parametrize("wrong", NO_FILES)
@pytest.mark.parametrize("reader", READERS)
def test_no_table(reader, wrong, tmp_path):
    make, word = NO_FILES[wrong]
    path = make(tmp_path)
    assert not problems(lambda: READERS[reader][0](path), word, file=path)


@pytest.mark.parametrize("wrong", WRONG_FILES)
@pytest.mark.parametrize("reader", READERS)
def test_wrong_table(reader, wrong, tmp_path):
    read, good = READERS[reader]
    change, words = WRONG_FILES[wrong]
    path = write("t.csv.gz" if "gzip" in wrong else "t.csv", change(good))(tmp_path)
    if wrong == "a column gone" and reader == "vindr image labels":
        words = ("No finding",)
    assert not problems(lambda: read(path), *words, file=path)
    if wrong == "a column twice":
        with pytest.raises(ValueError, match="twice|times|on one row"):
            read(path)


# --- tables: wrong values -------------------------------------------------------------------------

WRONG_VALUES = {
    # reader, text in the good table, what stands there instead, words expected
    "unknown finding": ("nih entries", "Emphysema", "Emphisema", "mean 'Emphysema'", "line 2"),
    "finding joined by ;": ("nih entries", "Cardiomegaly|", "Cardiomegaly;", "findings"),
    "finding twice": ("nih entries", "|Emphysema", "|Cardiomegaly", "each finding once"),
    "finding and none": ("nih entries", "|Emphysema", "|No Finding", "'No Finding' alone"),
    "image twice": ("nih entries", "0001_001", "0001_000", "each image on one row", "line 3"),
    "patient of another": ("nih entries", "png,No Finding,1,1", "png,No Finding,1,2", "patient_id"),
    "patient without number": ("nih entries", ",0,1,58", ",0,one,58", "patient_id is 'one'"),
    "negative age": ("nih entries", ",58,", ",-58,", "age is '-58'"),
    "age in words": ("nih entries", ",58,", ",old,", "age is 'old'"),
    "unknown sex": ("nih entries", ",M,PA", ",X,PA", "sex is 'X', expected M or F"),
    "unknown view": ("nih entries", ",M,PA", ",M,LL", "view is 'LL', expected PA or AP"),
    "zero width": ("nih entries", "PA,2682", "PA,0", "width is '0'"),
    "half a pixel": ("nih entries", "PA,2682", "PA,2682.5", "whole number"),
    "zero spacing": ("nih entries", "2749,0.143,0.139\n00", "2749,0,0.139\n00", "above 0"),
    "comma for a point": ("nih entries", "0.143,0.139\n00", '"0,143",0.139\n00', "spacing_x_mm"),
    "NaN box": ("nih boxes", "225.08", "nan", "x is 'nan'", "line 2"),
    "infinite box": ("nih boxes", "225.08", "inf", "x is 'inf'"),
    "box without width": ("nih boxes", "86.77", "0", "w is '0', expected a number above 0"),
    "inverted box": ("nih boxes", "86.77", "-86.77", "w is '-86.77'"),
    "box outside": ("nih boxes", "225.08", "1225.08", "inside an image of 1024 x 1024"),
    "box left of the image": ("nih boxes", "225.08", "-25", "inside an image"),
    "box of an unknown label": ("nih boxes", "Infiltrate", "Infiltrated", "line 3"),
    "answer in words": ("nih rereads", "YES", "MAYBE", "expected YES or NO"),
    "class misspelled": ("vindr readings", "Cardiomegaly", "Cardiomegally", "did you mean"),
    "class of another list": ("vindr readings", "Cardiomegaly,3", "Nodule_Mass,8", "'Nodule/Mass'"),
    "class without a name": ("vindr readings", "Cardiomegaly,3", ",3", "class_name is ''"),
    "class id shifted": ("vindr readings", "Cardiomegaly,3", "Cardiomegaly,4", "class_id is '4'"),
    "corner in words": (
        "vindr readings",
        "691",
        "left",
        "x_min is 'left', expected a number",
        "line 2",
    ),
    "label that counts": (
        "vindr image labels",
        "R9,0,1,0",
        "R9,0,2,0",
        "expected 0 or 1",
        "line 2",
    ),
    "label in words": ("vindr image labels", "R9,0,1,0", "R9,0,yes,0", "expected 0 or 1"),
    "label unknown": ("vindr image labels", "Nodule/Mass", "Nodule_Mass", "did you mean"),
    "reading twice": ("vindr image labels", "b,R9", "a,R9", "line 3"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_wrong_value(case, tmp_path):
    reader, old, new, *words = WRONG_VALUES[case]
    read, good = READERS[reader]
    assert old in good
    path = write("table.csv", good.replace(old, new, 1))(tmp_path)
    assert not problems(lambda: read(path), *words, file=path)


def test_image_labels_where_the_boxes_belong_and_tables_of_two_splits(tmp_path):
    labels = write("image_labels_train.csv", IMAGE_LABELS)(tmp_path)
    assert not problems(lambda: vindr.read_readings(labels), "give it as image_labels", file=labels)
    boxes = write("annotations_test.csv", READINGS.replace("rad_id", "who"))(tmp_path)
    two = lambda: vindr.read_readings(boxes, image_labels=labels)  # noqa: E731
    assert not problems(two, "take one split's two")


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda p: nih.read_boxes(p, size=0), "size must be"),
        (lambda p: nih.read_boxes(p, size=float("nan")), "size must be"),
        (lambda p: nih.label_matrix(nih.read_entries(p), ["Infiltrate"]), "did you mean"),
        (lambda p: vindr.read_readings(p, rare="drop"), "rare must be"),
    ],
)
def test_wrong_argument(call, word, tmp_path):
    path = write("t.csv", ENTRIES)(tmp_path)
    assert not problems(lambda: call(path), word)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "empty"),
        ("a.png\nb.jpg\n", "line 2"),
        ("a.png\na.png\n", "already on line 1"),
        ("a.png,b.png\n", "no name of a PNG"),
        (b"\xff\xfea\x00", "UTF-8"),
        ("<html>", "web page"),
    ],
)
def test_wrong_image_list(content, word, tmp_path):
    path = write("test_list.txt", content)(tmp_path)
    assert not problems(lambda: nih.read_image_list(path), word, file=path)


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("find", [nih.find_images, vindr.find_images])
@pytest.mark.parametrize("make", [missing, loop, forbidden_folder, write("file", "x"), directory])
def test_wrong_folder(find, make, tmp_path):
    path = make(tmp_path)
    assert not problems(lambda: find(path), file=path)


@pytest.mark.parametrize(
    ("find", "names", "words"),
    [
        (nih.find_images, ["images_001/a.png", "images_002/a.png"], ["is also at", "keep one"]),
        (vindr.find_images, ["a.dcm", "a.dicom"], ["are one image; keep one"]),
    ],
)
def test_one_image_twice(find, names, words, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert not problems(lambda: find(tmp_path), *words)


# --- pictures -------------------------------------------------------------------------------------


def png(width: int = 40, height: int = 30) -> bytes:
    """Return a PNG whose header says width x height, around pixels of 40 x 30."""
    buffer = io.BytesIO()
    Image.fromarray((gradient(30, 40) % 256).astype(np.uint8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def animated(folder: Path) -> Path:
    frames = [Image.new("L", (8, 8), k * 50) for k in range(3)]
    frames[0].save(folder / "a.png", save_all=True, append_images=frames[1:])
    return folder / "a.png"


def floating(folder: Path) -> Path:
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "a.tiff")
    return folder / "a.tiff"


WRONG_PICTURES = {
    "missing": (missing, "no such image"),
    "a folder": (directory, "cannot be read"),
    "a symlink loop": (loop, "cannot be read"),
    "forbidden": (forbidden, "cannot be read"),
    "empty": (write("a.png", b""), "no picture"),
    "text": (write("a.png", "hello"), "no picture"),
    "a table": (write("a.png", ENTRIES), "no picture"),
    "signature only": (write("a.png", png()[:8]), "again"),
    "header only": (write("a.png", png()[:33]), "again"),
    "cut in the pixels": (write("a.png", png()[:300]), "again"),
    "pixels overwritten": (write("a.png", png()[:60] + bytes(200) + png()[260:]), "again"),
    "gigantic": (write("a.png", png(60_000, 60_000)), "pixels"),
    "header overwritten": (write("a.png", png()[:18] + b"xy" + png()[20:]), "again"),
    "no width": (write("a.png", png(0, 30)), "again"),
    "animated": (animated, "holds 3 pictures"),
    "floating point": (floating, "stored as F"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", WRONG_PICTURES)
def test_wrong_picture(case, tmp_path):
    make, word = WRONG_PICTURES[case]
    path = make(tmp_path)
    assert not problems(lambda: nih.read_image(path), word, file=path)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_a_cut_png_gives_no_picture(share, tmp_path):
    path = write("a.png", png()[: int(len(png()) * share)])(tmp_path)
    assert not problems(lambda: nih.read_image(path), "again", file=path)


# --- DICOM ----------------------------------------------------------------------------------------


def dicom(syntax=None, *, syntax_after=None, **elements) -> Make:
    """Write a good file, compressed if asked for, with some elements changed; None: left out."""
    dataset = make_dataset(gradient())
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = syntax_after or syntax
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return write("a.dicom", to_bytes(dataset))


def compressed(syntax=uid.JPEG2000Lossless, **changes) -> Make:
    return dicom(syntax, **changes)


ITEMS = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\x10\0\0\0"  # of 0 and 16 bytes


def bundled(name: str) -> Make:
    return lambda folder: Path(get_testdata_file("CT_small.dcm")).with_name(name)


WRONG_DICOM = {
    "missing": (missing, "cannot be read"),
    "a folder": (directory, "cannot be read"),
    "a symlink loop": (loop, "cannot be read"),
    "forbidden": (forbidden, "cannot be read"),
    "empty": (write("a.dicom", b""), "empty"),
    "text": (write("a.dicom", "hello, world, this is no picture at all\n" * 20), "again"),
    "a table": (write("a.dicom", READINGS), "again"),
    "a PNG": (write("a.dicom", png()), "no DICOM file"),
    "zeros": (write("a.dicom", bytes(4000)), "no DICOM file"),
    "preamble only": (write("a.dicom", bytes(128) + b"DICM"), "no DICOM file"),
    "no rows": (dicom(Rows=None), "lacks Rows"),
    "zero rows": (dicom(Rows=0), "0 rows x 40 columns"),
    "gigantic": (dicom(Rows=65535, Columns=65535), "65535 rows"),
    "large, but not too large": (dicom(Rows=9000, Columns=9000), "cut: 2880 bytes"),
    "no bits allocated": (dicom(BitsAllocated=None), "lacks BitsAllocated"),
    "no pixel representation": (dicom(PixelRepresentation=None), "lacks PixelRepresentation"),
    "no photometric": (dicom(PhotometricInterpretation=None), "lacks PhotometricInterpretation"),
    "unknown photometric": (dicom(PhotometricInterpretation="GRAYISH"), "GRAYISH"),
    "RGB with one sample": (dicom(PhotometricInterpretation="RGB"), "expected MONOCHROME1 or 2"),
    "two samples": (dicom(SamplesPerPixel=2, Rows=18), "Samples per Pixel"),
    "seven bits allocated": (dicom(BitsAllocated=7, BitsStored=7, HighBit=6), "Bits Allocated"),
    "sign of 2": (dicom(PixelRepresentation=2), "Pixel Representation"),
    "empty pixels": (dicom(PixelData=b""), "cut: 0 bytes"),
    "no pixels": (dicom(PixelData=None), "no Pixel Data"),
    "unknown syntax": (
        write("a.dicom", to_bytes(make_dataset(gradient())).replace(b".1.2.1\0", b".1.2.7\0")),
        "transfer syntax 1.2.840.10008.1.2.7 is not known",
    ),
    "a film": (compressed(NumberOfFrames=12), "12 frames"),
    "a video": (
        compressed(syntax_after=uid.MPEG2MPML, PixelData=ITEMS + b"\0\0\1\xb3" * 4),
        "no still picture",
    ),
    "more rows than compressed": (compressed(Rows=48), "the compressed picture 36 x 40"),
    "more rows than RLE has": (compressed(uid.RLELossless, Rows=48), "again"),
    "garbage for a codestream": (compressed(PixelData=ITEMS + b"abcd" * 4), "again"),
    "fragment longer than the file": (
        compressed(PixelData=ITEMS[:-4] + b"\xff\xff\0\0abcd"),
        "again",
    ),
    "a report": (bundled("reportsi.dcm"), "Basic Text SR"),
    "a plan": (bundled("rtplan.dcm"), "RT Plan"),
    "an index": (lambda _: Path(get_testdata_file("DICOMDIR")), "no Pixel Data"),
    "an electrocardiogram": (bundled("waveform_ecg.dcm"), "12-lead ECG"),
}


@pytest.mark.parametrize("case", WRONG_DICOM)
def test_wrong_dicom(case, tmp_path):
    make, word = WRONG_DICOM[case]
    path = make(tmp_path)
    assert not problems(lambda: read_dicom(path), word, file=path)


@pytest.mark.parametrize("source", [None, 7, 3.5, object()])
def test_no_source_at_all(source):
    assert not problems(lambda: read_dicom(source), "path")


def test_one_broken_window_is_no_reason_to_lose_the_picture(tmp_path):
    data = to_bytes(make_dataset(gradient(), WindowCenter="7531", WindowWidth="2000"))
    path = write("a.dicom", data.replace(b"7531", b"7 31"))(tmp_path)
    image = read_dicom(path)
    assert image.voi == "percentiles" and "WindowCenter is '7 31', not a number" in image.steps[-1]
    assert not problems(lambda: read_dicom(path, voi="window"), "pass voi='percentiles'", file=path)


def sample_files() -> dict[str, bytes]:
    """One small file per way of storing pixels."""
    y, x = np.mgrid[:40, :48]
    stored = (2047 * (1 + np.sin(x / 5) * np.cos(y / 7))).astype(int)
    window = {"WindowCenter": 9, "WindowWidth": 99}
    files = {s.keyword: make_dataset(stored, syntax=s, **window) for s in PLAIN}
    for syntax in (uid.RLELossless, uid.JPEG2000Lossless):
        files[syntax.keyword] = make_dataset(stored)
        files[syntax.keyword].compress(syntax, generate_instance_uid=False)
    files["table"] = make_dataset(stored, RescaleSlope=2, RescaleIntercept=-5, PixelPaddingValue=0)
    files["table"].VOILUTSequence = [lut_item(np.arange(4096) * 16)]
    theirs = "JPGExtended MR_small_jpeg_ls_lossless SC_rgb_jpeg_dcmtk SC_rgb_jpeg_gdcm".split()
    return {name: to_bytes(dataset) for name, dataset in files.items()} | {
        name: bundled(f"{name}.dcm")(Path()).read_bytes() for name in theirs
    }


PLAIN = (
    *(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian),
    uid.DeflatedExplicitVRLittleEndian,
)
FILES = sample_files()


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_gives_no_picture_or_the_whole(name):
    if name == "JPGExtended":
        pytest.importorskip("libjpeg", reason="its 12 bits need the extra gpl")
    data, whole = FILES[name], read_dicom(FILES[name]).pixels
    for share in (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99):
        try:
            pixels = read_dicom(data[: int(len(data) * share)]).pixels
        except DicomError:
            continue
        np.testing.assert_array_equal(pixels, whole)  # what was cut off came after the pixels


# --- fuzz -----------------------------------------------------------------------------------------


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Flip, blank, delete or insert bytes, or change the header alone."""
    out, n = bytearray(data), len(data)
    at, kind = int(rng.integers(n)), rng.integers(5)
    if kind == 0:
        for k in rng.integers(n, size=rng.integers(1, 9)):
            out[k] = rng.integers(256)
    elif kind == 1:
        length = min(int(rng.integers(1, 64)), n - at)
        out[at : at + length] = bytes([int(rng.choice([0, 127, 255]))]) * length
    elif kind == 2:
        del out[at : at + int(rng.integers(1, 200))]
    elif kind == 3:
        out[at:at] = rng.bytes(int(rng.integers(1, 200)))
    else:
        for k in rng.integers(min(n, 1200), size=rng.integers(1, 4)):
            out[k] = rng.integers(256)
    return bytes(out)


def fuzz(seed: int, rounds: int) -> None:
    """Read mutated files: a picture in [0, 1] or a DicomError, and never a hang."""
    rng = np.random.default_rng(seed)
    for name, data in FILES.items():
        for round_ in range(rounds):
            start = time.monotonic()
            try:
                pixels = read_dicom(mutated(rng, data)).pixels
                assert pixels.ndim == 2 and pixels.dtype == np.float32, (name, round_)
                assert 0 <= pixels.min() and pixels.max() <= 1, (name, round_)
            except DicomError:
                pass
            assert time.monotonic() - start < PATIENCE, (name, round_)


@pytest.mark.slow
def test_fuzz_of_the_dicom_reader():
    # In a process of its own: a decoder that crashes must not take the tests with it.
    code = "import warnings, test_bad_inputs as t; warnings.simplefilter('ignore'); t.fuzz(0, 150)"
    folder = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*map(str, (folder, *folder.parents[:2])), *sys.path])
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
