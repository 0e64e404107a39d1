"""The packed cache and the data sets that read from it."""

import errno
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_helpers.data import gray, workers
from cxr_helpers.data import packed as packing


def read_png(path):
    return np.asarray(Image.open(path))


def pack(files, out, read=read_png, *, size=8, **options):
    return packing.pack_images(files, read, size=size, out=out, **options)


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
    packed = pack(files, tmp_path / "cache", size=20, workers=workers)
    assert packed.image_ids == ["a", "b", "c", "d"]
    assert packed.pixels.shape == (4, 20, 20) and packed.pixels.dtype == np.uint8
    assert list(packed.unreadable) == ["broken"]
    assert packed.original_hw.tolist() == [[40, 40], [20, 40], [40, 10], [7, 7]]
    assert packed.scale.tolist() == [0.5, 0.5, 0.5, 20 / 7]
    assert (packed.pixels[1, 10:] == 0).all() and (packed.pixels[1, :10] > 0).any()
    assert len(packed) == 4 and (packed[3] == packed.pixels[3]).all()
    assert [p.name for p in tmp_path.glob(".cache*")] == []


def test_a_cache_travels_to_another_process_without_its_pixels(files, tmp_path):
    packed = pack(files, tmp_path / "cache", size=200)
    letter = pickle.dumps(packed)
    assert len(letter) < 5000 < packed.pixels.nbytes
    arrived = pickle.loads(letter)
    assert isinstance(arrived.pixels, np.memmap) and (arrived.pixels == packed.pixels).all()
    held = packing.PackedImages(np.zeros((1, 2, 2), np.uint8), ["a"], np.array([[2, 2]]), {})
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
    pack(files, tmp_path / "whole", size=20)
    monkeypatch.setattr(packing, "SECONDS_AT_RISK", -1)
    with pytest.raises(KeyboardInterrupt):
        packing.pack_images(files, Reader("d"), size=20, out=tmp_path / "cache")
    return tmp_path / ".cache.partial"


def cut_journal(folder, files):
    path = folder / packing.JOURNAL
    path.write_bytes(path.read_bytes()[:-5])


def cut_pixels(folder, files):
    with (folder / "pixels.npy").open("r+b") as stream:
        stream.truncate(128 + 2 * 400 + 1)


def garble_journal(folder, files, garbage=b"\0\0"):
    lines = (folder / packing.JOURNAL).read_bytes().split(b"\n")
    lines[3] = garbage
    (folder / packing.JOURNAL).write_bytes(b"\n".join(lines))


def shorten_an_entry(folder, files):
    garble_journal(folder, files, b'["c", null]')


def number_for_an_entry(folder, files):
    garble_journal(folder, files, b"5")


def touch_a_file(folder, files):
    os.utime(files["b"], (1, 1))


def lose_journal(folder, files):
    (folder / packing.JOURNAL).unlink()


@pytest.mark.parametrize(
    "change, left",
    [
        (lambda folder, files: None, ["d", "broken"]),
        (cut_journal, ["c", "d", "broken"]),
        (cut_pixels, ["c", "d", "broken"]),
        (garble_journal, ["c", "d", "broken"]),
        (shorten_an_entry, ["c", "d", "broken"]),
        (number_for_an_entry, ["c", "d", "broken"]),
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
    packing.pack_images(files, reader, size=20, out=tmp_path / "cache")
    assert reader.names == left
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_an_unfinished_cache_of_another_size_or_list_is_not_gone_on_with(
    files, tmp_path, interrupted
):
    reader = Reader()
    packed = pack({"c": files["c"]}, tmp_path / "cache", reader)
    assert reader.names == ["c"] and packed.pixels.shape == (1, 8, 8)


def test_an_unfinished_cache_of_another_reader_is_not_gone_on_with(files, tmp_path, interrupted):
    """As where a warning came, the run was stopped, and `bits` given."""
    packed = pack(files, tmp_path / "cache", lambda path: read_png(path) // 2, size=20)
    whole = packing.PackedImages.load(tmp_path / "whole").pixels
    assert np.abs(packed.pixels - whole / 2.0).max() <= 2


def test_a_reader_is_known_by_its_name_its_code_and_its_arguments():
    def made(text):
        exec(text, found := {"__name__": "mine"})
        return found["read"]

    text = "def read(path, bits={}):\n    return path in {{'a', 'b', 'c'}} or (lambda: {})()\n"
    readers = [made(text.format(*both)) for both in ((12, 1), (14, 1), (12, 2))]
    readers += [partial(readers[0], bits=bits) for bits in (12, 14)] + [Reader(), read_png, np.load]
    keys = [packing.reader_key(read) for read in readers]
    assert len(set(keys)) == len(keys)
    assert packing.reader_key(made(text.format(12, 1))) == keys[0]
    code = "from cxr_helpers.data import packed; print(packed.reader_key(packed.fit_square))"
    for seed in "12":  # sets are in another order in each process
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == packing.reader_key(gray.fit_square)


def crash_or_read(path):
    if path.stem == "c":
        os._exit(1)
    if path.stem == "a":
        raise KeyError("surprise")
    return read_png(path)


def test_a_file_that_crashes_its_process_or_its_reader_is_set_aside(files, tmp_path):
    packed = pack(files, tmp_path / "cache", crash_or_read, workers=2)
    assert packed.image_ids == ["b", "d"] and packed.unreadable["a"] == "KeyError: 'surprise'"
    assert "process that read it died" in packed.unreadable["c"]


@pytest.mark.skipif(os.name == "nt", reason="holds the lock in the way of POSIX")
def test_two_processes_do_not_pack_into_one_folder(files, tmp_path):
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX)"
    hold += "; print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path / ".cache.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(packing.CacheError, match="another process is packing"):
            pack(files, tmp_path / "cache")
        other.stdin.close()
    pack(files, tmp_path / "cache")


def test_ids_of_pandas_and_paths_as_text_are_taken(files, tmp_path):
    numbers = pd.DataFrame({"image_id": [7, 8]})["image_id"].to_numpy()
    named = dict(zip(numbers, [str(files["a"]), files["b"]], strict=True))
    packed = pack(named, str(tmp_path / "cache"), size=np.int64(8))
    assert packed.image_ids == ["7", "8"]
    assert (packing.PackedImages.load(str(tmp_path / "cache")).pixels == packed.pixels).all()
    assert pack(pd.Series(files)[["d", "a"]], tmp_path / "c").image_ids == ["d", "a"]


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
    with pytest.raises(packing.CacheError, match=message):
        pack(change(files), tmp_path / "new" / "cache")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [0, -1, 8.0, "8", None])
def test_a_size_that_is_none_or_no_file_is_refused(files, tmp_path, size):
    with pytest.raises(packing.CacheError, match=f"nothing to pack.* at .*{size}"):
        pack(files, tmp_path / "cache", size=size)
    for named, words in (({}, "nothing to pack"), ({"broken": files["broken"]}, "none of 1 files")):
        with pytest.raises(packing.CacheError, match=words):
            pack(named, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


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
        with pytest.raises(packing.CacheError, match=f"{k}.{name}"):
            pack(files, folder / "cache", workers=workers)
        assert {path: tree(folder).get(path) for path in before} == before


@pytest.mark.parametrize("out", [".", "..", "/", "sub/.."])
def test_the_folder_one_is_in_is_never_replaced(files, tmp_path, monkeypatch, out):
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "notes.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path / "here")
    before = tree(tmp_path)
    with pytest.raises(packing.CacheError, match="replaced"):
        pack(files, out)
    assert tree(tmp_path) == before


def test_a_cache_whole_damaged_or_an_empty_folder_is_replaced(files, tmp_path):
    out = tmp_path / "cache"
    out.mkdir()
    for spoil in (lambda: None, lambda: None, lambda: (out / "index.json").write_text("")):
        packed = pack(files, out)
        assert packed.image_ids == ["a", "b", "c", "d"]
        assert sorted(p.name for p in tmp_path.iterdir() if "cache" in p.name) == ["cache"]
        spoil()
    assert "but damaged" in str(pytest.raises(packing.CacheError, packed.load, out).value)


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_the_old_cache_is_there_until_the_new_one_stands(files, tmp_path, monkeypatch, moment):
    """Killed before the first, the second renaming, and the removal of the old cache."""
    out = tmp_path / "cache"
    pack({"a": files["a"]}, out)
    old = contents(out)
    replace, steps = os.replace, []

    def stop(*arguments, act=replace):
        steps.append(arguments)
        if len(steps) == moment:
            raise KeyboardInterrupt
        return act(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(packing.os, "replace", stop)
        patch.setattr(packing.shutil, "rmtree", lambda path: stop(path, act=print))
        with pytest.raises(KeyboardInterrupt):
            pack({"b": files["b"]}, out)
    assert old in [contents(p) for p in (out, tmp_path / ".cache.old") if p.exists()]
    packing.drop_stale_lock(str(out))
    if moment < 3:
        assert contents(out) == old
    else:
        assert packing.PackedImages.load(out).image_ids == ["b"]
    packed = pack({"b": files["b"]}, out)
    assert packed.image_ids == ["b"]
    assert sorted(p.name for p in tmp_path.iterdir() if "cache" in p.name) == ["cache"]


def test_a_stale_lock_is_dropped_beside_a_folder_that_is_no_cache(files, tmp_path):
    thesis(tmp_path / ".cache.old")
    (tmp_path / ".cache.lock").touch()
    packing.drop_stale_lock(tmp_path / "cache")
    assert (tmp_path / ".cache.old" / "thesis").is_dir() and not (tmp_path / "cache").exists()
    assert not (tmp_path / ".cache.lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_a_cache_stays_a_link(files, tmp_path):
    real, link = tmp_path / "disk" / "real", tmp_path / "cache"
    pack({"a": files["a"]}, real)
    link.symlink_to(real, target_is_directory=True)
    assert pack({"b": files["b"]}, link).image_ids == ["b"]
    assert link.is_symlink() and packing.PackedImages.load(real).image_ids == ["b"]


def a_download(out):
    (out / "train").mkdir(parents=True)


FOREIGN = {
    a_download: "found train",
    an_index_of_another_kind: "found index.json, pixels.npy",
    cache_and_notes: "found index.json, notes.txt, pixels.npy",
    pixels_alone: "found pixels.npy",
    lambda out: None: "nothing there",
}


@pytest.mark.parametrize(("make", "found"), FOREIGN.items())
def test_what_is_no_cache_is_not_to_be_deleted(tmp_path, make, found):
    make(tmp_path / "c")
    with pytest.raises(packing.CacheError, match=f"c is no packed cache .*{found}") as caught:
        packing.PackedImages.load(str(tmp_path / "c"))
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"image_ids": ["a"]}, "damaged.*differ in length.*delete it"),
        ({"image_ids": list("aacd")}, "damaged.*without a size, or one twice"),
        ({"original_hw": [[0, 9]] * 4}, "damaged.*without a size, or one twice"),
        ({"image_ids": 3, "original_hw": []}, "packed cache"),
        ([1, 2], "packed cache"),
        (None, "delete it"),
    ],
)
def test_a_damaged_cache_is_told_and_may_be_deleted(files, tmp_path, index, words):
    pack(files, tmp_path / "c")
    path = tmp_path / "c" / "index.json"
    if index is None:
        (tmp_path / "c" / "pixels.npy").write_bytes(b"")
    else:
        whole = json.loads(path.read_text())
        path.write_text(json.dumps(whole | index if isinstance(index, dict) else index))
    with pytest.raises(packing.CacheError, match=words):
        packing.PackedImages.load(tmp_path / "c")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "free space"), (errno.EACCES, "mend the rights"), (errno.EIO, "mend that")],
)
def test_a_failing_disk_is_reported_with_its_own_reason(
    files, tmp_path, monkeypatch, number, words
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(packing, "_save", fail)
    with pytest.raises(packing.CacheError, match=words) as caught:
        pack(files, tmp_path / "cache")
    assert os.strerror(number) in str(caught.value)
    assert ("free space" in str(caught.value)) == (number == errno.ENOSPC)
    (tmp_path / "file").touch()
    with pytest.raises(packing.CacheError, match="cannot write .*file"):
        pack(files, tmp_path / "file" / "cache")


# --- workers --------------------------------------------------------------------------------------

IN_A_NOTEBOOK = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from cxr_helpers.data import packed as packing
    main = sys.modules["__main__"]
    del main.__file__  # a kernel's __main__ is no file that a worker could import
    main.__spec__ = None
    def read(path):
        return path
    try:
        packing.pack_images({"a": "a.png"}, read, size=8, out=sys.argv[1], workers=2)
    except packing.CacheError as error:
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
    with pytest.raises(packing.CacheError, match="cannot be sent to worker processes.*workers=1"):
        pack(files, tmp_path / "cache", lambda p: p, workers=2)


def test_processes_that_cannot_be_started_are_no_fault_of_the_disk(files, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(workers.ProcessPoolExecutor, "submit", refuse)
    with pytest.raises(packing.CacheError, match="could not be started .Cannot allocate memory"):
        pack(files, tmp_path / "cache", workers=2)


@pytest.mark.parametrize("hw", [(7, 7), (2000, 1999), (1, 4000), (813, 1001), (1001, 813)])
def test_the_picture_is_what_fitting_into_a_square_has_filled(hw):
    square = gray.fit_square(np.full(hw, 255, np.uint8), 160)
    packed = packing.PackedImages(square[None], ["a"], np.array([hw]), {})
    assert packed.picture(0).shape == tuple(packed.filled_hw[0])
    assert packed.picture(0).min() > 0 and packed.picture(0).sum() == square.sum()
