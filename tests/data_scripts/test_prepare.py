"""The scripts that prepare the real downloads, on tiny downloads written by hand."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from tiny_downloads import (
    BOX_HEADER,
    FULL,
    SCRIPTS,
    N,
    Usage,
    contents,
    fetching,
    links,
    nih_name,
    png,
    prepare_nih,
    prepare_vindr,
    run_nih,
    run_vindr,
    table,
)

from cxr_helpers.course.core import data
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.data import packed as packing

# --- the result -----------------------------------------------------------------------------------


def test_nih_every_file_and_row_is_accounted_for(nih_root, capsys):
    assert run_nih(nih_root) == 3
    packed = packing.PackedImages.load(nih_root / "packed" / "nih_16")
    assert packed.image_ids == [nih_name(k) for k in (0, 1, 4, 5, 6, 7, 8, 9)]
    assert table(nih_root, "entries.csv", "image_id") == packed.image_ids
    assert table(nih_root, "entries.csv", "official_list").count("test") == 1
    assert table(nih_root, "labels.csv", "Mass") == [0, 1, 0, 1, 0, 1, 0, 1]
    assert table(nih_root, "boxes.csv").iloc[0].tolist() == [nih_name(1), "Mass", 16, 0, 24, 16]
    assert table(nih_root, "no_file.csv", "image_id") == [nih_name(3)]
    aside = table(nih_root, "set_aside.csv")
    assert aside["file"].tolist() == [f"images/{nih_name(77)}", f"images/{nih_name(2)}"]
    assert aside["reason"][0] == "no row of the table names it"
    assert "cannot be read" in aside["reason"][1] and str(nih_root) not in aside["reason"][1]
    assert "Set aside: 2 files" in capsys.readouterr().out


def test_vindr_every_file_and_row_is_accounted_for(vindr_root):
    assert run_vindr(vindr_root) == 3
    names = [f"image{k}" for k in range(N) if k != 2]
    assert table(vindr_root, "images.csv", "image_id") == names
    assert table(vindr_root, "fused.csv", "readers") == [2, 2, 1] + [2] * 7
    assert table(vindr_root, "fused.csv", "x_max")[2] == 40  # clipped
    assert len(table(vindr_root, "readings.csv")) == 27
    reasons = ["x_max is not above x_min", "a box outside the image"]
    assert table(vindr_root, "dropped_rows.csv", "reason") == reasons
    aside = table(vindr_root, "set_aside.csv")
    assert aside["file"].tolist() == ["train/image2.dicom"]
    assert "no DICOM file" in aside["reason"][0]


def test_physionets_image_labels_add_the_readings_without_a_box(vindr_root):
    (vindr_root / "train.csv").unlink()
    boxes = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\nimage0,R8,ILD,1,2,30,30\n"
    (vindr_root / "annotations_train.csv").write_text(boxes)
    labels = "image_id,rad_id,ILD,No finding\nimage0,R8,1,0\nimage0,R9,0,1\nimage1,R9,0,1\n"
    (vindr_root / "image_labels_train.csv").write_text(labels)
    assert run_vindr(vindr_root) == 3  # of the other images no row tells
    readings = table(vindr_root, "readings.csv").to_numpy().tolist()
    assert readings == [["image0", "R8", False], ["image0", "R9", True], ["image1", "R9", True]]
    assert table(vindr_root, "images.csv", "image_id") == ["image0", "image1"]


def test_progress_tells_rate_and_time_left(nih_root, capfd):
    arguments = [str(nih_root), "--size", "16", "--workers", "1"]
    assert prepare_nih.main(arguments) == 3
    assert re.search(
        r"packing nih_16: 100%.* 9/9 \[\d+:\d+<\d+:\d+.*image/s\]", capfd.readouterr().err
    )


def test_all_read_is_status_0_and_a_second_run_changes_nothing(vindr_root):
    shutil.copy(vindr_root / "train" / "image1.dicom", vindr_root / "train" / "image2.dicom")
    assert run_vindr(vindr_root) == 0
    before = contents(vindr_root)
    times = {p: p.stat().st_mtime_ns for p in vindr_root.rglob("pixels.npy")}
    assert run_vindr(vindr_root) == 0
    assert contents(vindr_root) == before
    assert times == {p: p.stat().st_mtime_ns for p in vindr_root.rglob("pixels.npy")}


def test_again_reads_what_was_mended(vindr_root):
    assert run_vindr(vindr_root) == 3
    shutil.copy(vindr_root / "train" / "image1.dicom", vindr_root / "train" / "image2.dicom")
    assert run_vindr(vindr_root, "--again") == 0
    assert table(vindr_root, "set_aside.csv").empty


def test_the_course_takes_what_was_prepared(nih_root, vindr_root, tmp_path, monkeypatch):
    sizes = ["--size", "96"]
    assert prepare_nih.main([str(nih_root), *sizes, "--workers", "1", "--quiet"]) == 3
    assert prepare_vindr.main([str(vindr_root), "--size", "160", "--workers", "1", "--quiet"]) == 3

    def decode(*_, **__):
        raise AssertionError("packed again")

    monkeypatch.setattr(data, "pack_images", decode)
    settings = load_settings({"CXR_DATA": str(tmp_path)})
    assert len(data.load_nih(settings).entries) == 8
    prepared = data.load_vindr(settings)
    assert len(prepared.images.image_ids) == 9
    assert prepared.fused["x_max"].max() == 40  # clipped to the image
    (nih_root / "images" / nih_name(3)).write_bytes(png(3))
    with pytest.raises(AssertionError, match="packed again"):  # the cache is not whole any more
        data.load_nih(settings)


# --- killed and started again ---------------------------------------------------------------------

KILLED = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import prepare_vindr as script
from cxr_helpers.data import workers
from cxr_helpers.data import packed as packing
packing.SECONDS_AT_RISK = 0
workers.CHUNK = 1
parent, note = os.getpid(), Path(sys.argv[3])

def read(path):
    if path.stem == "image7":
        note.write_text(str(os.getpid()))
        time.sleep(0.3)
        os.kill(parent, getattr(signal, "SIGKILL", signal.SIGTERM))
    return script.read_dicom_pixels(path)

script.SOURCE = replace(script.SOURCE, read=read)
script.main([sys.argv[2], "--size", "16", "--quiet", "--workers", "2"])
"""


@pytest.mark.slow
def test_killed_and_started_again_ends_in_the_same_bytes(vindr_root, tmp_path):
    assert run_vindr(vindr_root) == 3
    whole = contents(vindr_root)
    shutil.rmtree(vindr_root / "packed")
    note = tmp_path / "pid"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(SCRIPTS), str(vindr_root), str(note)],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and note.is_file(), done.stderr
    unfinished = vindr_root / "packed" / ".vindr_16.partial"
    lines = (unfinished / packing.JOURNAL).read_text().splitlines()
    assert len(lines) >= 3, "nothing was kept"
    if os.name == "posix":
        assert done.returncode == -signal.SIGKILL
        _wait_until_gone(int(note.read_text()))
    assert run_vindr(vindr_root) == 3
    assert contents(vindr_root) == whole


def _wait_until_gone(pid):
    """A worker ends by itself once its parent is killed."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text() if Path("/proc/self").exists() else ""
            if ") Z" in state:
                return
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} outlived its parent")


TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def killed_at(moment, root, run):
    """Run in a process that gets SIGKILL the n-th time it touches a file below the root.

    Returns whether it came so far. Every opening, renaming, removing and flushing counts.
    """
    pid = os.fork()
    if pid == 0:
        seen = 0

        def count():
            nonlocal seen
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def watch(event, arguments):
            if event in TOUCHES and str(arguments[0]).startswith(str(root)):
                count()

        def fsync(descriptor, flush=os.fsync):
            count()
            flush(descriptor)
            count()

        os.fsync = fsync
        sys.addaudithook(watch)
        try:
            run()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kind", ["nih", "vindr"])
@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(kind, request, tmp_path, monkeypatch):
    """From the download (of the NIH's archive) to the last table, each moment in turn."""
    monkeypatch.setattr(packing, "SECONDS_AT_RISK", -1)
    if kind == "nih":
        start, server = (request.getfixturevalue(name) for name in ("archived", "server"))
        more = links(start, server, hashlib.md5(server.content).hexdigest())
    else:
        start, more = request.getfixturevalue("vindr_root"), []
        for path in sorted((start / "train").iterdir())[4:]:
            path.unlink()
    run = {"nih": run_nih, "vindr": run_vindr}[kind]
    root = shutil.copytree(start, tmp_path / "copy")
    status = run(root, *more)
    whole, moment, killed = contents(root), 0, True
    while killed:
        moment += 1
        shutil.rmtree(root)
        shutil.copytree(start, root)
        killed = killed_at(moment, root, lambda: run(root, *more))
        assert run(root, *more) == status, moment
        assert contents(root) == whole, moment
    assert moment > 50  # so many moments there were


def test_an_interrupt_is_status_130(vindr_root, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_vindr, "prepare", interrupt)
    assert run_vindr(vindr_root) == 130
    assert "start it again" in capsys.readouterr().err


# --- what cannot be done --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"test_list.txt": "1_000.png\n"}, "test_list.txt names none of the images here, such as"),
        (
            {"train_val_list.txt": nih_name(0), "test_list.txt": nih_name(0)},
            "in both of test_list.txt and train_val_list.txt",
        ),
        ({"BBox_List_2017.csv": f"{BOX_HEADER}a,Mass,1,1,9,9,,,"}, "names images such as 'a', the"),
    ],
)
def test_lists_and_boxes_of_other_images_are_refused(nih_root, capsys, files, words):
    for name, text in files.items():
        (nih_root / name).write_text(text)
    assert run_nih(nih_root) == 1
    error = capsys.readouterr().err
    assert words in error and f"'{nih_name(0)}'" in error


def test_files_that_the_table_does_not_know_are_shown_beside_it(nih_root, vindr_root, capsys):
    for path in sorted((nih_root / "images").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    assert run_nih(nih_root) == 1
    words = (
        "the files are called such as 'x00000000_000.png', and the table says '00000000_000.png'"
    )
    assert words in capsys.readouterr().err
    text = (
        (vindr_root / "train.csv")
        .read_text()
        .replace("image", "scan")
        .replace("scan_id", "image_id")
    )
    (vindr_root / "train.csv").write_text(text)
    assert run_vindr(vindr_root) == 1
    assert "called such as 'image0', and the table says 'scan0'" in capsys.readouterr().err


def test_a_folder_that_is_no_cache_is_not_replaced(nih_root, capsys):
    folder = nih_root / "packed" / "nih_16"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    for more in ([], ["--again"]):
        assert run_nih(nih_root, *more) == 1
        assert "nih_16 is no packed cache, so it is not replaced" in capsys.readouterr().err
        assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_dry_run_writes_nothing(nih_root, vindr_root, tmp_path, capsys):
    before = contents(tmp_path)
    assert run_nih(nih_root, "--dry-run") == 0
    assert "Images: 9 of 9 to pack; 1 files are not in the table, 1 rows" in capsys.readouterr().out
    assert run_vindr(vindr_root, "--dry-run", "--limit", "4") == 0
    assert "Images: 4 of 10 to pack" in capsys.readouterr().out
    assert run_nih(tmp_path / "new", "--dry-run", "--download", "nih", "--limit", "100") == 0
    assert "1 of 1 archives, 2.0 GB" in capsys.readouterr().out
    assert run_nih(tmp_path / "new", "--dry-run", "--download", "nih") == 0
    assert "12 of 12 archives, 45.1 GB" in capsys.readouterr().out
    assert contents(tmp_path) == before and not (tmp_path / "new").exists()


def test_a_trial_leaves_a_whole_cache_alone(nih_root):
    run_nih(nih_root)
    before = contents(nih_root / "packed")
    assert run_nih(nih_root, "--limit", "2") == 0
    after = contents(nih_root / "packed")
    assert {name: after[name] for name in before} == before
    trial = packing.PackedImages.load(nih_root / "packed" / "nih_16_first2")
    assert trial.image_ids == [nih_name(0), nih_name(1)]


def test_a_full_disk_is_refused_before_anything_is_written(vindr_root, monkeypatch, capsys):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
    before = contents(vindr_root)
    assert run_vindr(vindr_root) == 1
    assert "packing 10 images needs" in capsys.readouterr().err
    assert contents(vindr_root) == before


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_really_full_disk_stops_packing_and_unpacking_with_its_reason(
    vindr_root, archived, capsys
):
    pixels = vindr_root / "packed" / ".vindr_16.partial" / "pixels.npy"
    part = archived / "images" / f".{nih_name(2)}.part"
    for path, run, root, words in (
        (pixels, run_vindr, vindr_root, "vindr_16 (No space left on device); free space"),
        (part, run_nih, archived, f"cannot write {part} (No space left on device)"),
    ):
        path.parent.mkdir(parents=True)
        path.symlink_to(FULL)
        assert run(root) == 1
        assert words in capsys.readouterr().err
        path.unlink(missing_ok=True)
        assert run(root) == 3
    assert len(list((archived / "images").iterdir())) == N


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda root: (root / "train.csv").unlink(), "no table of boxes (train.csv or"),
        (lambda root: (root / "train.csv").write_text("a,b\n1,2\n"), "no column image_id"),
        (lambda root: shutil.rmtree(root / "train"), "no .dicom or .dcm file"),
        (lambda root: shutil.rmtree(root), "no such folder"),
        (
            lambda root: [p.write_text("x") for p in (root / "train").iterdir()],
            "none of 10 files could be read",
        ),
    ],
    ids=["no table", "wrong table", "no images", "no folder", "no readable image"],
)
def test_what_cannot_be_done_is_status_1_with_the_reason(vindr_root, capsys, spoil, words):
    spoil(vindr_root)
    assert run_vindr(vindr_root) == 1
    error = capsys.readouterr().err
    assert error.startswith("prepare_vindr: ") and words in error and "vindr" in error


@pytest.mark.parametrize(
    "arguments", [["--limit", "0"], ["--size", "big"], ["--workers", "-1"], ["--links", "x"]]
)
def test_wrong_usage_is_status_2(nih_root, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        prepare_nih.main([str(nih_root), *arguments])
    assert caught.value.code == 2


@pytest.mark.parametrize("script", [prepare_nih, prepare_vindr])
def test_help_shows_an_example_and_the_statuses(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = capsys.readouterr().out
    assert "example: python data_scripts/prepare_" in text and "3  done, but files" in text


def test_boxes_on_an_image_that_is_not_square_are_refused(nih_root, capsys):
    Image.new("L", (32, 16)).save(nih_root / "images" / nih_name(1))
    assert run_nih(nih_root) == 1
    assert f"not square, such as {nih_name(1)}" in capsys.readouterr().err
