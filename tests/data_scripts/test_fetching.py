"""fetching.py: archives and downloads, on tiny ones and a server on this machine."""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile

import pytest
from tiny_downloads import (
    N,
    Usage,
    add,
    contents,
    fetching,
    links,
    nih_name,
    nih_tables,
    png,
    prepare_nih,
    run_nih,
    run_vindr,
    table,
)

# --- archives -------------------------------------------------------------------------------------


def test_members_that_would_leave_the_folder_are_refused_and_reported(archived, tmp_path):
    with zipfile.ZipFile(archived / "archive.zip", "w") as archive:
        archive.writestr(f"images_001/images/{nih_name(77)}", png(77))
        archive.writestr("../outside.png", png(0))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert run_nih(archived, "--remove-archives") == 3
    assert not (tmp_path / "outside.png").exists() and not (archived / "archive.zip").exists()
    assert len(list((archived / "images").iterdir())) == N
    aside = table(archived, "set_aside.csv")
    assert aside["file"].tolist() == [
        "archive.zip: ../outside.png",
        "archive.zip: link.png",
        "images_001.tar.gz: ../outside.png",
        "images_001.tar.gz: images/link.png",
        "images_001.tar.gz: images/pipe.png",
        f"images_001/images/{nih_name(77)}",
    ]
    assert (
        "would not stay in the folder" in aside["reason"][0]
        and "would not stay" in aside["reason"][2]
    )
    before = contents(archived)
    assert run_nih(archived) == 3  # reported again, unpacked only once
    assert contents(archived) == before


def test_an_archive_without_an_image_is_not_removed(archived):
    with zipfile.ZipFile(archived / "thesis.zip", "w") as archive:
        archive.writestr("chapter1.txt", "years of work")
    assert run_nih(archived, "--remove-archives") == 3
    assert [path.name for path in archived.glob("*.*z*")] == ["thesis.zip"]


def test_no_way_leads_out_of_the_folder(tmp_path):
    """Absolute names, hard links, and a folder that is a link to elsewhere."""
    root, outside = tmp_path / "nih", tmp_path / "outside"
    nih_tables(root)
    outside.mkdir()
    (outside / "secret").write_text("s")
    (root / "images_002").symlink_to(outside, target_is_directory=True)
    with tarfile.open(root / "images_001.tar.gz", "w:gz") as tar:
        add(tar, f"images/{nih_name(0)}", png(0))
        add(tar, str(outside / "absolute.png"), png(0))
        add(tar, "images_002/through.png", png(0))
        add(tar, "images/a/../../../outside/up.png", png(0))
        add(tar, "images/hard.png", type=tarfile.LNKTYPE, linkname="../outside/secret")
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        archive.writestr("images_002/through.png", png(0))
        archive.writestr(str(outside / "absolute.png"), png(0))
    for name in ("images_001.tar.gz", "more.zip"):
        assert fetching.unpack(root / name, root, progress=False) is None
    assert [path.name for path in outside.iterdir()] == ["secret"]
    refused = [file for _, file, _ in fetching.refused_members(root)]
    assert "images_001.tar.gz: images_002/through.png" in refused
    assert len(refused) >= 5
    assert not (root / "images" / "hard.png").exists()


def test_a_disk_that_fills_up_while_unpacking_stops_there(archived, monkeypatch, capsys):
    seen = []

    def usage(_):
        seen.append(1)
        return Usage(10**9, 0, 10**9 if len(seen) < 4 else 1000)

    monkeypatch.setattr(fetching.shutil, "disk_usage", usage)
    assert run_nih(archived) == 1
    assert "unpacking 00000002_000.png needs" in capsys.readouterr().err
    assert len(list((archived / "images").iterdir())) == 2


def test_a_file_of_another_size_under_a_name_of_the_archive_stays(archived):
    own = archived / "images" / nih_name(0)
    own.parent.mkdir()
    own.write_bytes(b"years of work")
    assert run_nih(archived, "--remove-archives") == 3
    assert own.read_bytes() == b"years of work" and (archived / "images_001.tar.gz").is_file()
    reasons = dict(
        zip(
            table(archived, "set_aside.csv", "file"),
            table(archived, "set_aside.csv", "reason"),
            strict=True,
        )
    )
    assert f"such as images/{nih_name(0)}; move those" in reasons["images_001.tar.gz"]
    own.rename(archived / "mine.txt")
    assert run_nih(archived, "--again", "--remove-archives") == 3
    assert own.read_bytes() == png(0) and not (archived / "images_001.tar.gz").exists()
    assert "images_001.tar.gz" not in table(archived, "set_aside.csv", "file")


def test_an_archive_with_a_password_is_not_called_damaged(tmp_path, monkeypatch):
    root = tmp_path / "nih"
    root.mkdir()
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr("images/a.png", png(0))

    def locked(*_):
        raise RuntimeError("File 'images/a.png' is encrypted, password required")

    monkeypatch.setattr(zipfile.ZipFile, "open", locked)
    error = fetching.unpack(root / "a.zip", root, progress=False)
    assert "password required" in error and "download" not in error


def test_a_damaged_note_counts_as_none(archived):
    assert run_nih(archived) == 3
    before = table(archived, "set_aside.csv", "file")
    note = archived / ".unpacked" / "images_001.tar.gz.json"
    for text in ("[]", "{}", "", '{"bytes": 3}'):
        note.write_text(text)
        assert fetching.refused_members(archived) == []
        assert run_nih(archived) == 3
        assert table(archived, "set_aside.csv", "file") == before


def test_a_cut_archive_is_reported_and_what_is_in_it_used(archived):
    archive = archived / "images_001.tar.gz"
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert run_nih(archived) == 3
    aside = table(archived, "set_aside.csv")
    assert aside["file"].tolist() == ["images_001.tar.gz"]
    assert "download it again" in aside["reason"][0]
    assert 0 < len(table(archived, "entries.csv")) < N
    assert not [p for p in (archived / "images").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda tar: gzip.compress(tar)[:-4], "ended before"),
        (lambda tar: gzip.compress(tar.replace(b"b.png", b"c.png")), "a header in it is damaged"),
        (lambda tar: gzip.compress(tar, 0).replace(b"b.png", b"c.png"), "CRC check failed"),
        (lambda tar: tar[:1024], "cut between two files"),
    ],
)
def test_an_archive_damaged_where_tarfile_sees_its_end_is_kept(tmp_path, damage, words):
    """With --remove-archives it would be gone, and with it the files after the damage."""
    archive, stream = tmp_path / "images_001.tar.gz", io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("a.png", "b.png"):
            add(tar, name, b"of a block of 512 bytes")
    archive.write_bytes(damage(stream.getvalue()))
    error = fetching.unpack(archive, tmp_path, remove=True, progress=False)
    assert words in error and "download it again" in error
    assert archive.exists() and not fetching.is_unpacked(archive, tmp_path)


# --- download -------------------------------------------------------------------------------------


def test_a_download_goes_on_where_the_connection_ended(archived, server):
    server.cut = 1000
    md5 = hashlib.md5(server.content).hexdigest()
    assert run_nih(archived, *links(archived, server, md5)) == 3
    assert server.ranges == [None, "bytes=1000-"]
    assert (archived / "images_001.tar.gz").read_bytes() == server.content
    assert run_nih(archived, *links(archived, server, md5)) == 3
    assert len(server.ranges) == 2  # nothing is downloaded twice
    assert json.loads((archived / ".unpacked" / "images_001.tar.gz.json").read_text())["refused"]


@pytest.mark.parametrize(
    "change, path, words",
    [
        ({}, "/file", "arrived damaged (MD5"),
        ({"kind": "text/html"}, "/file", "is a web page"),
        ({}, "/gone", "did not arrive (HTTP Error 404"),
    ],
)
def test_what_arrives_is_checked(archived, server, capsys, change, path, words):
    for name, value in change.items():
        setattr(server, name, value)
    assert run_nih(archived, *links(archived, server, "0" * 32, path)) == 1
    assert words in capsys.readouterr().err
    assert not list(archived.glob("images_001*"))


@pytest.mark.parametrize("name", ["images_001.tar.gz", "images_001.tar.gz.part"])
def test_what_a_browser_is_downloading_is_left_alone(archived, server, capsys, name):
    (archived / name).write_bytes(b"half of it")
    md5 = hashlib.md5(server.content).hexdigest()
    status = run_nih(archived, *links(archived, server, md5))
    assert (archived / name).read_bytes() == b"half of it"
    assert status == (1 if name.endswith(".gz") else 3)
    error = capsys.readouterr().err
    assert ("images_001.tar.gz is not what" in error) == name.endswith(".gz")
    assert "delete" not in error and (status == 3 or "move it elsewhere" in error)


def test_a_disk_that_cannot_be_written_is_no_fault_of_the_connection(archived, server, capsys):
    fetching.part_of(archived / "images_001.tar.gz").mkdir()
    assert run_nih(archived, *links(archived, server)) == 1
    error = capsys.readouterr().err
    assert "cannot write" in error and "did not arrive" not in error


def test_bad_lists_of_links_are_refused(tmp_path):
    for text in (
        "",
        "https://a.b/c",
        "ftp://a.b/c name",
        "https://a.b/c ../name",
        "https://a b c d",
    ):
        (tmp_path / "links.txt").write_text(text)
        with pytest.raises(fetching.PrepareError, match="links.txt"):
            fetching.read_links(tmp_path / "links.txt")


def test_the_list_of_archives_is_whole():
    assert len({a.url for a in prepare_nih.ARCHIVES}) == 12
    assert len({a.md5 for a in prepare_nih.ARCHIVES}) == 12
    assert sum(images for *_, images in prepare_nih._BOX) == 112_120
    assert [len(prepare_nih._enough(n)) for n in (1, 4999, 5000, 112_120)] == [1, 1, 2, 12]


@pytest.mark.parametrize(
    ("run", "source", "words"),
    [
        (run_nih, "kaggle", "kaggle datasets download nih-chest-xrays/data -p {root}"),
        (run_vindr, "kaggle", "kaggle competitions download vinbigdata-chest-xray-"),
        (run_vindr, "physionet", "https://physionet.org/content/vindr-cxr/1.0.0/"),
    ],
)
def test_what_needs_a_persons_account_is_told(tmp_path, capsys, run, source, words):
    assert run(tmp_path / "new", "--download", source) == 0
    assert words.format(root=tmp_path / "new") in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_no_download_begins_without_room_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: Usage(10**10, 0, 10**10))
    assert run_nih(tmp_path / "new", "--download", "nih") == 1
    assert "downloading and unpacking" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
