"""Tiny downloads for the tests of the data scripts: files, archives and a server of them."""

import http.server
import io
import sys
import tarfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tiny_root import NIH_BOX_HEADER, NIH_HEADER, VINDR_HEADER

SCRIPTS = Path(__file__).resolve().parents[1] / "data_scripts"
sys.path.insert(0, str(SCRIPTS))
import fetching  # noqa: E402, F401
import prepare_nih  # noqa: E402
import prepare_vindr  # noqa: E402

FULL = Path("/dev/full")  # a file on a full disk, for every write to it fails as on one
Usage = namedtuple("Usage", "total used free")
ENTRIES, BOX_HEADER, READINGS = NIH_HEADER + "\n", NIH_BOX_HEADER + "\n", VINDR_HEADER + "\n"
N = 10


def png(seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def nih_name(k):
    return f"{k:08d}_000.png"


def nih_tables(root):
    rows = [
        f"{nih_name(k)},{'Mass' if k % 2 else 'No Finding'},0,{k},50,M,PA,32,32,0.1,0.1\n"
        for k in range(N)
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "Data_Entry_2017_v2020.csv").write_text(ENTRIES + "".join(rows))
    boxes = f"{BOX_HEADER}{nih_name(1)},Mass,512,0,256,512,,,\n"
    (root / "BBox_List_2017.csv").write_text(boxes)
    (root / "test_list.txt").write_text(nih_name(1) + "\n")


def run_nih(root, *more):
    return prepare_nih.main([str(root), "--size", "16", "--workers", "1", "--quiet", *more])


def run_vindr(root, *more):
    return prepare_vindr.main([str(root), "--size", "16", "--workers", "1", "--quiet", *more])


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(root, name, column=None):
    kind = "nih" if (root / "images").is_dir() else "vindr"
    found = pd.read_csv(root / "packed" / f"{kind}_tables" / name, keep_default_na=False)
    return found if column is None else found[column].tolist()


def add(tar, name, content=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


class Server(http.server.BaseHTTPRequestHandler):
    """Sends `content`, or from where it is asked to; ends the first connection early."""

    content, ranges, cut, kind = b"", [], 0, "application/gzip"

    def do_GET(self):  # noqa: N802
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        if self.path == "/gone":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = self.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", self.kind)
        self.end_headers()
        self.wfile.write(body[: self.cut] if self.cut and not wanted else body)

    def log_message(self, *_):
        pass


def links(root, server, md5="", path="/file"):
    (root / "links.txt").write_text(f"# comment\n{server.url}{path} images_001.tar.gz {md5}\n")
    return ["--download", "nih", "--links", str(root / "links.txt")]
