"""Downloads as the preparation meets them."""

import http.server
import tarfile
import threading

import numpy as np
import pytest
from dicom_files import gradient, make_dataset, to_bytes
from tiny_downloads import READINGS, N, Server, add, fetching, nih_name, nih_tables, png


@pytest.fixture
def nih_root(tmp_path):
    """Ten images; the third is cut, the fourth is not there, one is not in the table."""
    root = tmp_path / "nih"
    nih_tables(root)
    (root / "images").mkdir()
    for k in range(N):
        (root / "images" / nih_name(k)).write_bytes(png(k)[: 80 if k == 2 else None])
    (root / "images" / nih_name(3)).rename(root / "images" / nih_name(77))
    return root


@pytest.fixture
def vindr_root(tmp_path):
    """Ten images; the third file is text."""
    root = tmp_path / "vindr"
    (root / "train").mkdir(parents=True)
    rows = []
    for k in range(N):
        dicom = to_bytes(make_dataset(np.roll(gradient(), k, axis=1)))
        (root / "train" / f"image{k}.dicom").write_bytes(b"no picture" if k == 2 else dicom)
        rows += [f"image{k},Cardiomegaly,3,R{r},{10 + r},10,30,30\n" for r in (8, 9)]
        rows += [f"image{k},No finding,14,R10,,,,\n"]
    rows += ["image1,Cardiomegaly,3,R8,30,10,20,30\n"]  # inverted
    rows += ["image1,ILD,5,R8,41,10,60,30\n", "image1,ILD,5,R8,30,10,60,30\n"]  # 40 pixels wide
    (root / "train.csv").write_text(READINGS + "".join(rows))
    return root


@pytest.fixture
def archived(tmp_path, request):
    """A root with the images in an archive that also wants to write outside."""
    root = tmp_path / "nih"
    nih_tables(root)
    with tarfile.open(root / "images_001.tar.gz", "w:gz") as tar:
        for k in range(4 if "any_moment" in request.node.name else N):
            add(tar, f"images/{nih_name(k)}", png(k))
        add(tar, "../outside.png", png(0))
        add(tar, "images/link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "images/pipe.png", type=tarfile.FIFOTYPE)
    return root


@pytest.fixture
def server(archived, monkeypatch):
    """A server of the archive on this machine, and the root without it."""
    path = archived / "images_001.tar.gz"
    handler = type("Handler", (Server,), {"content": path.read_bytes(), "ranges": []})
    path.unlink()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetching.time, "sleep", lambda _: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        handler.url = f"http://127.0.0.1:{httpd.server_port}"
        yield handler
        httpd.shutdown()
