"""The packed cache and the data sets that read from it."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cxr_helpers.data import datasets


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


def test_ids_of_pandas_and_paths_as_text_are_taken(files, tmp_path):
    numbers = pd.DataFrame({"image_id": [7, 8]})["image_id"].to_numpy()
    named = dict(zip(numbers, [str(files["a"]), files["b"]], strict=True))
    packed = datasets.pack_images(named, read_png, size=np.int64(8), out=str(tmp_path / "cache"))
    assert packed.image_ids == ["7", "8"]
    assert (packed.read(numbers[1]) == packed.read("8")).all()
    assert packed.rows(numbers).tolist() == packed.rows([7, 8]).tolist() == [0, 1]
    assert packed.rows(torch.tensor([8])).tolist() == packed.rows(pd.Series(["8"])).tolist() == [1]
    again = datasets.PackedImages.load(str(tmp_path / "cache"))
    assert (again.pixels == packed.pixels).all()
    series = pd.Series(files)[["d", "a"]]
    assert datasets.pack_images(series, read_png, size=8, out=tmp_path / "c").image_ids == [
        "d",
        "a",
    ]
    with pytest.raises(KeyError, match="'007' is not in the cache.*its ids are such as '7'"):
        packed.read("007")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: list(files.values()), "must map image ids to paths, not be a list"),
        (lambda files: {1.0: files["a"]}, "image id 1.0 is a float"),
        (lambda files: {None: files["a"]}, "image id None"),
        (lambda files: {1: files["a"], "1": files["b"]}, "'1' is there both as a number"),
        (lambda files: files | {"x": float("nan")}, "path of image 'x' is nan"),
    ],
)
def test_files_that_are_none_are_refused_before_anything_is_written(
    files, tmp_path, change, message
):
    with pytest.raises(datasets.CacheError, match=message):
        datasets.pack_images(change(files), read_png, size=8, out=tmp_path / "new" / "cache")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [0, -1, 8.0, "8", None])
def test_a_size_that_is_none_is_refused(files, tmp_path, size):
    with pytest.raises(datasets.CacheError, match="nothing to pack.* at "):
        datasets.pack_images(files, read_png, size=size, out=tmp_path / "cache")


# --- what is not ours -----------------------------------------------------------------------------


def tree(folder):
    return {p.relative_to(folder): p.is_file() and p.read_bytes() for p in folder.rglob("*")}


def thesis(out):
    (out / "thesis").mkdir(parents=True)
    (out / "thesis" / "chapter1.txt").write_text("years of work")


def a_file(out):
    out.write_text("years of work")


def cache_and_notes(out):
    out.mkdir()
    (out / "index.json").write_text('{"image_ids": []}')
    (out / "pixels.npy").write_bytes(b"")
    (out / "notes.txt").write_text("years of work")


def an_index_of_another_kind(out):
    out.mkdir()
    (out / "index.json").write_text('{"answers": [1, 2]}')
    (out / "pixels.npy").write_bytes(b"own")


def pixels_alone(out):
    out.mkdir()
    np.save(out / "pixels.npy", np.zeros((2, 8, 8), np.uint8))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["cache", ".cache.partial", ".cache.old", ".cache.lock"])
def test_only_a_packed_cache_is_ever_replaced(files, tmp_path, name, workers):
    makers = [thesis, a_file, cache_and_notes, an_index_of_another_kind, pixels_alone]
    if name == ".cache.partial":  # any files of these names are an unfinished cache there
        makers = [thesis, cache_and_notes]
    for k, make in enumerate(makers if name != ".cache.lock" else [a_file]):
        folder = tmp_path / str(k)
        folder.mkdir()
        make(folder / name)
        before = tree(folder)
        with pytest.raises(datasets.CacheError, match=f"{k}.{name}"):
            datasets.pack_images(files, read_png, size=8, out=folder / "cache", workers=workers)
        assert {path: tree(folder).get(path) for path in before} == before


@pytest.mark.parametrize("out", [".", "..", "/", "sub/.."])
def test_the_folder_one_is_in_is_never_replaced(files, tmp_path, monkeypatch, out):
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "notes.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path / "here")
    before = tree(tmp_path)
    with pytest.raises(datasets.CacheError, match="replaced"):
        datasets.pack_images(files, read_png, size=8, out=out)
    assert tree(tmp_path) == before


def test_a_cache_whole_damaged_or_an_empty_folder_is_replaced(files, tmp_path):
    out = tmp_path / "cache"
    out.mkdir()
    for spoil in (lambda: None, lambda: None, lambda: (out / "index.json").write_text("")):
        packed = datasets.pack_images(files, read_png, size=8, out=out)
        assert packed.image_ids == ["a", "b", "c", "d"]
        assert sorted(p.name for p in tmp_path.iterdir() if "cache" in p.name) == ["cache"]
        spoil()
    assert "but damaged" in str(pytest.raises(datasets.CacheError, packed.load, out).value)


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_the_old_cache_is_there_until_the_new_one_stands(files, tmp_path, monkeypatch, moment):
    """Killed before the first, the second renaming, and the removal of the old cache."""
    out = tmp_path / "cache"
    datasets.pack_images({"a": files["a"]}, read_png, size=8, out=out)
    old = contents(out)
    replace, steps = os.replace, []

    def stop(*arguments, act=replace):
        steps.append(arguments)
        if len(steps) == moment:
            raise KeyboardInterrupt
        return act(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(datasets.os, "replace", stop)
        patch.setattr(datasets.shutil, "rmtree", lambda path: stop(path, act=print))
        with pytest.raises(KeyboardInterrupt):
            datasets.pack_images({"b": files["b"]}, read_png, size=8, out=out)
    assert old in [contents(p) for p in (out, tmp_path / ".cache.old") if p.exists()]
    datasets.drop_stale_lock(str(out))
    if moment < 3:
        assert contents(out) == old
    else:
        assert datasets.PackedImages.load(out).image_ids == ["b"]
    packed = datasets.pack_images({"b": files["b"]}, read_png, size=8, out=out)
    assert packed.image_ids == ["b"]
    assert sorted(p.name for p in tmp_path.iterdir() if "cache" in p.name) == ["cache"]


def test_a_stale_lock_is_dropped_beside_a_folder_that_is_no_cache(files, tmp_path):
    thesis(tmp_path / ".cache.old")
    (tmp_path / ".cache.lock").touch()
    datasets.drop_stale_lock(tmp_path / "cache")
    assert (tmp_path / ".cache.old" / "thesis").is_dir() and not (tmp_path / "cache").exists()
    assert not (tmp_path / ".cache.lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_a_cache_stays_a_link(files, tmp_path):
    real, link = tmp_path / "disk" / "real", tmp_path / "cache"
    datasets.pack_images({"a": files["a"]}, read_png, size=8, out=real)
    link.symlink_to(real, target_is_directory=True)
    assert datasets.pack_images({"b": files["b"]}, read_png, size=8, out=link).image_ids == ["b"]
    assert link.is_symlink() and datasets.PackedImages.load(real).image_ids == ["b"]


def test_only_a_damaged_cache_may_be_deleted(tmp_path):
    download = tmp_path / "vindr"
    (download / "train").mkdir(parents=True)
    for folder, found in ((download, "found train"), (tmp_path / "none", "nothing there")):
        with pytest.raises(datasets.CacheError, match=found) as caught:
            datasets.PackedImages.load(str(folder))
        assert "is no packed cache" in str(caught.value) and "delete" not in str(caught.value)
    for make in (an_index_of_another_kind, cache_and_notes, pixels_alone):
        make(tmp_path / make.__name__)
        with pytest.raises(datasets.CacheError, match="is no packed cache") as caught:
            datasets.PackedImages.load(tmp_path / make.__name__)
        assert "delete" not in str(caught.value)


@pytest.mark.parametrize(
    "index", ["[1, 2]", '{"image_ids": 3, "original_hw": [], "unreadable": {}}']
)
def test_an_index_of_another_form_is_no_cache(tmp_path, index):
    pixels_alone(tmp_path / "c")
    (tmp_path / "c" / "index.json").write_text(index)
    with pytest.raises(datasets.CacheError, match="packed cache"):
        datasets.PackedImages.load(tmp_path / "c")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "free space"), (errno.EACCES, "mend the rights"), (errno.EIO, "mend that")],
)
def test_a_failing_disk_is_reported_with_its_own_reason(
    files, tmp_path, monkeypatch, number, words
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(datasets, "_save", fail)
    with pytest.raises(datasets.CacheError, match=words) as caught:
        datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache")
    assert os.strerror(number) in str(caught.value)
    assert ("free space" in str(caught.value)) == (number == errno.ENOSPC)


# --- workers --------------------------------------------------------------------------------------

IN_A_NOTEBOOK = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from cxr_helpers.data import datasets
    main = sys.modules["__main__"]
    del main.__file__  # a kernel's __main__ is no file that a worker could import
    main.__spec__ = None
    def read(path):
        return path
    try:
        datasets.pack_images({"a": "a.png"}, read, size=8, out=sys.argv[1], workers=2)
    except datasets.CacheError as error:
        print(error)
"""


def test_a_reader_that_spawned_workers_cannot_import_is_named_at_once(tmp_path):
    script = tmp_path / "cell.py"
    script.write_text(IN_A_NOTEBOOK)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "cannot import the reader (AttributeError: Can't get attribute 'read'" in done.stdout
    assert "save it as a function of a module" in done.stdout and "decoder" not in done.stdout


def test_a_reader_that_cannot_be_sent_is_named_at_once(files, tmp_path):
    with pytest.raises(datasets.CacheError, match="cannot be sent to worker processes.*workers=1"):
        datasets.pack_images(files, lambda p: p, size=8, out=tmp_path / "cache", workers=2)


def test_processes_that_cannot_be_started_are_no_fault_of_the_disk(files, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(datasets.ProcessPoolExecutor, "submit", refuse)
    with pytest.raises(datasets.CacheError, match="could not be started .Cannot allocate memory"):
        datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache", workers=2)


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


def test_no_side_is_refused():
    with pytest.raises(ValueError, match="1 pixel or more, not 0"):
        datasets.fit_square(np.zeros((4, 4), np.uint8), 0)


def test_scaling_keeps_brightness_and_takes_floats():
    assert datasets.fit_square(np.full((30, 30), 77, np.uint8), 8).tolist() == [[77] * 8] * 8
    assert (datasets.fit_square(np.full((30, 30), 0.5, np.float32), 8) == 128).all()


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
TAKEN = {
    "uint8": RAMP,
    "uint16 of the full range": RAMP.astype(np.uint16) * 257,
    "uint16 of the other byte order": (RAMP.astype(np.uint16) * 257).astype(">u2"),
    "float32": (RAMP / 255).astype(np.float32),
    "float64": RAMP / 255,
    "a tensor of bytes": torch.from_numpy(RAMP),
    "a tensor that wants a gradient": torch.tensor(RAMP / 255, requires_grad=True),
    "what read_dicom returns": SimpleNamespace(pixels=(RAMP / 255).astype(np.float32)),
}


@pytest.mark.parametrize("image", TAKEN.values(), ids=TAKEN)
def test_every_image_of_the_contract_comes_out_the_same(tmp_path, image):
    assert (datasets.fit_square(image, 16) == RAMP).all()
    packed = datasets.pack_images({"a": "a.png"}, lambda _: image, size=16, out=tmp_path / "c")
    assert (packed.read("a") == RAMP).all() and packed.original_hw.tolist() == [[16, 16]]
    dataset = detection(boxes=BOXES[:0], read=lambda _: image, transform=lambda **all_: all_)
    np.testing.assert_allclose(dataset[0][0].numpy(), np.stack([RAMP / 255] * 3), atol=1e-6)


REFUSED = {
    "no pixel": (np.zeros((0, 4), np.uint8), "shape"),
    "three channels": (np.zeros((4, 4, 3), np.uint8), "shape"),
    "NaN": (np.full((4, 4), np.nan), "nan to nan"),
    "inf": (np.array([[0, np.inf]]), "inf"),
    "floats to 255": (np.full((4, 4), 255.0), "255.0 to 255.0; floats must be in"),
    "below zero": (np.array([[-0.1, 1]]), "-0.1 to 1.0"),
    "int64": (np.array([[0, 255]]), "int64 image, 0 to 255"),
    "int64 of 0 and 1": (np.array([[0, 1]]), "int64 image, 0 to 1"),
    "int32": (torch.zeros((2, 2), dtype=torch.int32), "int32"),
    "bool": (np.array([[True, False]]), "bool"),
    "objects": (np.array([[0, None]]), "object"),
    "12 bits": (np.array([[0, 4095]], np.uint16), "up to 4095 holds 12 bits"),
    "15 bits": (np.array([[0, 32767]], np.uint16), "15 bits"),
    "a list": ([[0, 255]], "int64"),
}


@pytest.mark.parametrize(("image", "message"), REFUSED.values(), ids=REFUSED)
def test_images_of_another_kind_are_refused_by_name(tmp_path, image, message):
    with pytest.raises(ValueError, match=message):
        datasets.fit_square(image, 4)
    with pytest.raises(ValueError, match=f"image 'c': .*{message}"):
        detection(boxes=BOXES[:0], read=lambda _: image)[0]
    with pytest.raises(datasets.CacheError, match=f"the first, x: .*{message}"):
        datasets.pack_images({"x": "x.png"}, lambda _: image, size=4, out=tmp_path / "c")


def test_a_black_image_of_16_bits_and_one_of_the_upper_half_are_taken():
    assert datasets.fit_square(np.zeros((2, 2), np.uint16), 2).max() == 0
    assert datasets.fit_square(np.full((2, 2), 32768, np.uint16), 2).max() == 128


# --- data sets ------------------------------------------------------------------------------------

PIXELS = {name: np.full((4, 6), k, np.uint8) for k, name in enumerate("abc")}
TABLE = pd.DataFrame({"image_id": ["c", "a"], "Mass": [1, 0], "Edema": [0, 0]})
BOX = {"x_min": 1, "y_min": 2, "x_max": 5, "y_max": 6}
BOXES = pd.DataFrame([{"image_id": "c", "label": "ILD", **BOX}, {"image_id": "b", "label": "x"}])


def detection(
    table=TABLE, boxes=BOXES[:1], classes=("Edema", "ILD"), read=PIXELS.__getitem__, **more
):
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


def box_of(image_id="c", *, label="ILD", **corners):
    return pd.DataFrame([{"image_id": image_id, "label": label, **BOX, **corners}])


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ({"x_max": 1}, r"\[1.0, 2.0, 1.0, 6.0\] has no x_min < x_max"),
        ({"y_max": 0}, "has no x_min < x_max and y_min < y_max"),
        ({"x_min": np.nan}, "is not of finite numbers"),
        ({"x_max": np.inf}, "is not of finite numbers"),
        ({"y_max": "low"}, "is not of finite numbers"),
        ({"x_min": -9, "x_max": -1}, "is outside the image"),
    ],
)
def test_boxes_that_cannot_train_are_named_when_the_data_set_is_made(corners, message):
    boxes = pd.concat([BOXES[:1], box_of(**corners)])
    with pytest.raises(ValueError, match=f"image 'c': the box .*{message}"):
        detection(boxes=boxes)
    elsewhere = pd.concat([BOXES[:1], box_of("z", **corners)])  # not needed, so passed over
    assert detection(boxes=elsewhere)[0][1]["boxes"].tolist() == [[1, 2, 5, 6]]


def test_a_box_beyond_the_image_is_named_before_any_pipeline():
    def never(**_):
        raise AssertionError("the pipeline was called")

    beyond = box_of(x_min=6, x_max=8)  # the image is 6 pixels wide
    with pytest.raises(ValueError, match=r"image 'c': .*is outside the image of 4 x 6 pixels"):
        detection(boxes=beyond, transform=never)[0]
    packed = datasets.PackedImages(
        np.zeros((2, 6, 6), np.uint8), ["a", "c"], np.full((2, 2), 6), {}
    )
    with pytest.raises(ValueError, match="image 'c': .*is outside the image of 6 x 6 pixels"):
        detection(boxes=beyond, read=packed.read)


def test_what_a_transform_makes_is_checked_too():
    def spoil(**changes):
        return lambda **given: given | changes

    with pytest.raises(ValueError, match="image 'c': the box .*nan"):
        detection(transform=spoil(bboxes=np.full((1, 4), np.nan)))[0]
    with pytest.raises(ValueError, match="image 'c': .*int64"):
        detection(transform=spoil(image=np.zeros((4, 6), np.int64)))[0]
    nothing = detection(transform=spoil(bboxes=[], labels=[]))[0][1]
    assert nothing["boxes"].shape == (0, 4) and nothing["labels"].dtype == torch.int64


SPELLINGS = {
    "numbers": ("00000013", 13),
    "numbers with a gap": ("00000013", 13.0),
    "leading zeros": ("13", "0013"),
    "a suffix": ("00000013", "00000013.dicom"),
    "no suffix": ("00000013_000.png", "00000013_000"),
    "a folder": ("a.png", "images/a.png"),
    "a folder of Windows": ("a", "train\\a.DCM"),
    "white space": ("a", " a "),
    "capitals": ("ab", "AB"),
}


@pytest.mark.parametrize(("ours", "theirs"), SPELLINGS.values(), ids=SPELLINGS)
def test_boxes_under_another_spelling_are_not_lost(ours, theirs):
    table = pd.DataFrame({"image_id": [ours, "other"]})
    one, both = box_of(theirs), pd.concat([box_of("other"), box_of(theirs)])
    for boxes in (one, both):
        with pytest.raises(ValueError) as caught:
            detection(table=table, boxes=boxes)
        assert repr(ours) in str(caught.value) and repr(theirs) in str(caught.value)
        with pytest.raises(ValueError, match="write the ids alike"):
            datasets.boxes_by_image(boxes, table["image_id"], ["ILD"])


def test_files_of_one_name_in_two_patients_folders_are_two_images():
    table = pd.DataFrame({"image_id": ["p1/IM0001.png"]})
    boxes = pd.concat([box_of("p1/IM0001.png"), box_of("p2/IM0001.png")])
    assert len(detection(table=table, boxes=boxes).targets[0][0]) == 1
    with pytest.raises(ValueError, match="write the ids alike"):
        detection(table=table, boxes=box_of("p1/im0001"))


def test_boxes_of_other_images_alone_are_an_error_unless_there_are_none():
    with pytest.raises(ValueError, match="none of 1 boxes .* such as 'z', the table such as 'c'"):
        detection(boxes=box_of("z"))
    assert len(detection(boxes=box_of("z")[:0])[0][1]["boxes"]) == 0
    assert datasets.boxes_by_image(box_of("z"), ["a"], ["ILD"])[0][0].shape == (0, 4)


def test_ids_that_are_numbers_on_both_sides_meet():
    table = pd.DataFrame({"image_id": [1, 2]})
    for ids in (2, 2.0):
        data = detection(table=table, boxes=box_of(ids), read=lambda k: PIXELS["abc"[k]])
        assert [len(found) for found, _ in data.targets] == [0, 1]
        assert data[1][1]["boxes"].tolist() == [[1, 2, 5, 6]]


def test_a_box_of_no_image_and_names_that_are_no_list_are_refused():
    with pytest.raises(ValueError, match="row 1 of the boxes has no image_id"):
        detection(boxes=pd.concat([BOXES[:1], box_of(None)]))
    with pytest.raises(ValueError, match="label nan is none of the classes"):
        detection(boxes=pd.concat([BOXES[:1], box_of(label=np.nan)]))
    with pytest.raises(ValueError, match="list of different names, not 'ILD'"):
        detection(classes="ILD")
    for classes in (["ILD", "ILD"], {"ILD"}, []):
        with pytest.raises(ValueError, match="list of different names"):
            detection(classes=classes)
    assert detection(classes=iter(["ILD"]))[0][1]["labels"].tolist() == [1]
    twice = pd.DataFrame([["a", 1, 0]], columns=["image_id", "Mass", "Mass"])
    with pytest.raises(ValueError, match="a column of Mass twice"):
        datasets.LabeledImageDataset(twice, print, labels=["Mass"])
    with pytest.raises(ValueError, match="not the text 'Mass'"):
        datasets.LabeledImageDataset(TABLE, print, labels="Mass")


def test_rows_of_a_dictionary_serve_as_tables():
    boxes = BOXES[:1].to_dict("records")
    data = detection(table={"image_id": ["c"]}, boxes=boxes, classes=pd.Series(["Edema", "ILD"]))
    assert data[0][1]["labels"].tolist() == [2]


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


def test_boxes_in_shares_of_the_image_are_refused():
    corners = {"x_min": [0.1], "y_min": [0.1], "x_max": [0.5], "y_max": [1.0]}
    boxes = pd.DataFrame({"image_id": ["a"], "label": ["ILD"], **corners})
    table = pd.DataFrame({"image_id": ["a"]})
    with pytest.raises(ValueError, match="shares of the image; multiply"):
        datasets.DetectionDataset(table, lambda name: np.eye(8), boxes=boxes, classes=["ILD"])


@pytest.mark.parametrize("change", [{"original_hw": [[0, 9], [9, 9]]}, {"image_ids": ["a", "a"]}])
def test_an_index_that_means_nothing_is_damaged(tmp_path, change):
    files = {"a": tmp_path / "a", "b": tmp_path / "b"}
    folder = tmp_path / "cache"
    datasets.pack_images(files, lambda path: np.eye(9), size=4, out=folder)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | change))
    with pytest.raises(datasets.CacheError, match="damaged.*without a size, or one twice"):
        datasets.PackedImages.load(folder)


def test_a_size_that_is_text_is_named(tmp_path):
    with pytest.raises(datasets.CacheError, match="a size of '32'; give a whole number"):
        datasets.pack_images({"a": tmp_path / "a"}, np.load, size="32", out=tmp_path / "cache")
