"""The packed cache and the data sets that read from it."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cxr_helpers import datasets


def read_png(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def files(tmp_path):
    """Four readable pictures of different shape and one that is text."""
    rng = np.random.default_rng(0)
    paths = {}
    for name, shape in {"a": (40, 40), "b": (20, 40), "c": (40, 10), "d": (7, 7)}.items():
        paths[name] = tmp_path / f"{name}.png"
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[name])
    paths["broken"] = tmp_path / "broken.png"
    paths["broken"].write_text("not a picture")
    return paths


@pytest.mark.parametrize("workers", [1, 2])
def test_packing_keeps_order_shape_and_names_what_it_could_not_read(files, tmp_path, workers):
    packed = datasets.pack_images(files, read_png, size=20, out=tmp_path / "cache", workers=workers)
    assert packed.image_ids == ["a", "b", "c", "d"]
    assert packed.pixels.shape == (4, 20, 20) and packed.pixels.dtype == np.uint8
    assert list(packed.unreadable) == ["broken"]
    assert packed.original_hw.tolist() == [[40, 40], [20, 40], [40, 10], [7, 7]]
    assert packed.scale.tolist() == [0.5, 0.5, 0.5, 20 / 7]
    assert (packed.pixels[1, 10:] == 0).all() and (packed.pixels[1, :10] > 0).any()
    assert packed.rows(["d", "a"]).tolist() == [3, 0]
    assert [p.name for p in tmp_path.glob(".cache*")] == []


def test_a_cache_travels_to_another_process_without_its_pixels(files, tmp_path):
    packed = datasets.pack_images(files, read_png, size=200, out=tmp_path / "cache")
    letter = pickle.dumps(packed)
    assert len(letter) < 5000 < packed.pixels.nbytes
    arrived = pickle.loads(letter)
    assert isinstance(arrived.pixels, np.memmap) and (arrived.pixels == packed.pixels).all()
    assert (arrived.read("c") == packed.read("c")).all()
    held = datasets.PackedImages(np.zeros((1, 2, 2), np.uint8), ["a"], np.array([[2, 2]]), {})
    assert pickle.loads(pickle.dumps(held)).pixels.shape == (1, 2, 2)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Reader:
    """Reads, counts, and is interrupted at one file."""

    def __init__(self, stop_at=""):
        self.stop_at, self.names = stop_at, []

    def __call__(self, path):
        if path.stem == self.stop_at:
            raise KeyboardInterrupt
        self.names.append(path.stem)
        return read_png(path)


@pytest.fixture
def interrupted(files, tmp_path, monkeypatch):
    """An unfinished cache of the files before 'd', and the folder of a whole one."""
    datasets.pack_images(files, read_png, size=20, out=tmp_path / "whole")
    monkeypatch.setattr(datasets, "SECONDS_AT_RISK", -1)
    with pytest.raises(KeyboardInterrupt):
        datasets.pack_images(files, Reader("d"), size=20, out=tmp_path / "cache")
    return tmp_path / ".cache.partial"


def cut_journal(folder, files):
    path = folder / datasets.JOURNAL
    path.write_bytes(path.read_bytes()[:-5])


def cut_pixels(folder, files):
    with (folder / "pixels.npy").open("r+b") as stream:
        stream.truncate(128 + 2 * 400 + 1)


def garble_journal(folder, files):
    lines = (folder / datasets.JOURNAL).read_bytes().split(b"\n")
    lines[3] = b"\0\0"
    (folder / datasets.JOURNAL).write_bytes(b"\n".join(lines))


def touch_a_file(folder, files):
    os.utime(files["b"], (1, 1))


def lose_journal(folder, files):
    (folder / datasets.JOURNAL).unlink()


@pytest.mark.parametrize(
    "change, left",
    [
        (lambda folder, files: None, ["d", "broken"]),
        (cut_journal, ["c", "d", "broken"]),
        (cut_pixels, ["c", "d", "broken"]),
        (garble_journal, ["c", "d", "broken"]),
        (touch_a_file, ["b", "c", "d", "broken"]),
        (lose_journal, ["a", "b", "c", "d", "broken"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(
    files, tmp_path, interrupted, change, left
):
    change(interrupted, files)
    reader = Reader()
    datasets.pack_images(files, reader, size=20, out=tmp_path / "cache")
    assert reader.names == left
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_an_unfinished_cache_of_another_size_or_list_is_not_gone_on_with(
    files, tmp_path, interrupted
):
    reader = Reader()
    packed = datasets.pack_images({"c": files["c"]}, reader, size=8, out=tmp_path / "cache")
    assert reader.names == ["c"] and packed.pixels.shape == (1, 8, 8)


def crash_or_read(path):
    if path.stem == "c":
        os._exit(1)
    return read_png(path)


def test_a_file_that_crashes_its_process_is_set_aside(files, tmp_path):
    packed = datasets.pack_images(files, crash_or_read, size=8, out=tmp_path / "cache", workers=2)
    assert packed.image_ids == ["a", "b", "d"]
    assert "process that read it died" in packed.unreadable["c"]


def raise_key_error(path):
    if path.stem == "a":
        raise KeyError("surprise")
    return read_png(path)


def test_an_unexpected_error_costs_one_file(files, tmp_path):
    packed = datasets.pack_images(files, raise_key_error, size=8, out=tmp_path / "cache")
    assert packed.unreadable["a"] == "KeyError: 'surprise'"


def test_a_disk_that_cannot_be_written_is_named(files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(datasets.CacheError, match="cannot write .*file"):
        datasets.pack_images(files, read_png, size=8, out=tmp_path / "file" / "cache")


@pytest.mark.skipif(os.name == "nt", reason="holds the lock in the way of POSIX")
def test_two_processes_do_not_pack_into_one_folder(files, tmp_path):
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX)"
    hold += "; print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path / ".cache.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(datasets.CacheError, match="another process is packing"):
            datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache")
        other.stdin.close()
    datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache")


def test_an_image_that_is_not_there_is_named(files, tmp_path):
    packed = datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache")
    with pytest.raises(KeyError, match="1 images are not in the cache, such as 'broken'"):
        packed.rows(["a", "broken"])


def test_nothing_to_pack_is_refused(files, tmp_path):
    with pytest.raises(datasets.CacheError, match="nothing to pack"):
        datasets.pack_images({}, read_png, size=8, out=tmp_path / "cache")
    with pytest.raises(datasets.CacheError, match="none of 1 files could be read.*broken"):
        datasets.pack_images({"broken": files["broken"]}, read_png, size=8, out=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_damaged_caches_are_refused_by_name(files, tmp_path):
    out = tmp_path / "cache"
    with pytest.raises(datasets.CacheError, match="cache is no packed cache"):
        datasets.PackedImages.load(out)
    datasets.pack_images(files, read_png, size=8, out=out)
    index = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps({**index, "image_ids": ["a"]}))
    with pytest.raises(datasets.CacheError, match="differ in length"):
        datasets.PackedImages.load(out)
    (out / "pixels.npy").write_bytes(b"")
    with pytest.raises(datasets.CacheError, match="delete it"):
        datasets.PackedImages.load(out)


def test_scaling_keeps_brightness_and_takes_floats():
    assert datasets.fit_square(np.full((30, 30), 77, np.uint8), 8).tolist() == [[77] * 8] * 8
    assert (datasets.fit_square(np.full((30, 30), 0.5, np.float32), 8) == 128).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.full((4, 4), np.nan),
        np.full((4, 4), 255.0),
    ],
)
def test_images_of_the_wrong_kind_are_refused(image):
    with pytest.raises(ValueError):
        datasets.fit_square(image, 4)


# --- data sets ------------------------------------------------------------------------------------

PIXELS = {name: np.full((4, 6), k, np.uint8) for k, name in enumerate("abc")}
TABLE = pd.DataFrame({"image_id": ["c", "a"], "Mass": [1, 0], "Edema": [0, 0]})
BOX = {"x_min": 1, "y_min": 2, "x_max": 5, "y_max": 6}
BOXES = pd.DataFrame([{"image_id": "c", "label": "ILD", **BOX}, {"image_id": "b", "label": "x"}])


def detection(table=TABLE, boxes=BOXES[:1], classes=("Edema", "ILD"), **more):
    read = PIXELS.__getitem__
    return datasets.DetectionDataset(table, read, boxes=boxes, classes=classes, **more)


def test_any_reader_function_serves_a_table():
    dataset = datasets.ImageDataset(TABLE, PIXELS.__getitem__, lambda image: image + 1)
    assert len(dataset) == 2 and dataset[0].tolist() == [[3] * 6] * 4
    assert datasets.ImageDataset(TABLE, PIXELS.__getitem__)[1] is PIXELS["a"]


def test_labels_come_with_the_image():
    dataset = datasets.LabeledImageDataset(TABLE, PIXELS.__getitem__, labels=["Edema", "Mass"])
    image, labels = dataset[0]
    assert image is PIXELS["c"] and labels.tolist() == [0, 1] and labels.dtype == torch.float32


def test_boxes_come_in_the_form_that_torchvision_takes():
    image, target = detection()[0]
    assert image.shape == (3, 4, 6) and image.dtype == torch.float32
    assert image.unique().tolist() == [pytest.approx(2 / 255)]
    assert target["boxes"].tolist() == [[1, 2, 5, 6]] and target["labels"].tolist() == [2]
    normal = detection()[1][1]
    assert normal["boxes"].shape == (0, 4) and normal["labels"].shape == (0,)


def test_a_transform_moves_image_and_boxes_alike():
    def flip(*, image, bboxes, labels):
        width = image.shape[1]
        bboxes = np.column_stack(
            [width - bboxes[:, 2], bboxes[:, 1], width - bboxes[:, 0], bboxes[:, 3]]
        )
        return {"image": image[:, ::-1], "bboxes": bboxes, "labels": labels}

    assert detection(transform=flip)[0][1]["boxes"].tolist() == [[1, 2, 5, 6]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: datasets.ImageDataset(TABLE[["Mass"]], print), "column image_id"),
        (lambda: datasets.ImageDataset(TABLE.replace("a", None), print), "without gaps"),
        (lambda: datasets.LabeledImageDataset(TABLE, print, labels=["Hernia"]), "column Hernia"),
        (lambda: datasets.LabeledImageDataset(TABLE, print, labels=[]), "give labels"),
        (
            lambda: datasets.LabeledImageDataset(TABLE.replace(1, 2), print, labels=["Mass"]),
            "Mass of 'c' is 2; expected 0 or 1",
        ),
        (lambda: detection(boxes=BOXES.drop(columns="x_max")), "no column x_max"),
        (lambda: detection(classes=["Edema"]), "'ILD' is none of the classes Edema"),
        (lambda: detection(boxes=BOXES), "'x' is none of the classes"),
    ],
)
def test_tables_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_image_is_an_empty_data_set():
    assert len(datasets.ImageDataset(TABLE[:0], PIXELS.__getitem__)) == 0
    assert len(detection(table=TABLE[:0])) == 0


def test_the_packed_cache_is_a_reader_function(files, tmp_path):
    packed = datasets.pack_images(files, read_png, size=16, out=tmp_path / "cache")
    table = pd.DataFrame({"image_id": ["b", "d"]})
    dataset = datasets.ImageDataset(table, packed.read, torch.from_numpy)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert (batch.numpy() == packed.pixels[[1, 3]]).all()
    with pytest.raises(KeyError, match="'broken' is not in the cache: cannot identify"):
        packed.read("broken")
    with pytest.raises(KeyError, match="'z' is not in the cache: no file"):
        packed.read("z")


@pytest.mark.parametrize("hw", [(7, 7), (2000, 1999), (1, 4000), (813, 1001), (1001, 813)])
def test_the_picture_is_what_fitting_into_a_square_has_filled(hw):
    square = datasets.fit_square(np.full(hw, 255, np.uint8), 160)
    packed = datasets.PackedImages(square[None], ["a"], np.array([hw]), {})
    assert packed.picture(0).shape == tuple(packed.filled_hw[0])
    assert packed.picture(0).min() > 0 and packed.picture(0).sum() == square.sum()
