"""The same picture as DICOM files written by other tools, to be read back exactly or nearly so.

`tests/encoded/` holds what Debian 12's dcmtk 3.6.7 and gdcm 3.0.21 wrote, so that every test run
reads files of tools that share no code with pydicom. With the tools at hand (`apt-get install
dcmtk libgdcm-tools`) the tests encode anew as well; `python tests/encoders.py` rewrites the folder.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicom_files import make_dataset, to_bytes

STORED = Path(__file__).with_name("encoded")


@dataclass(frozen=True)
class Encoder:
    """How to write a file: command, bits of the picture, and how far a value may be off.

    `tolerance` is in steps of an 8-bit picture (256 grays), 0 for a lossless syntax.
    """

    command: str
    syntax: str
    bits: int = 12
    tolerance: int = 0

    @property
    def tool(self) -> str:
        return self.command.split()[0]


ENCODERS = {
    "dcmtk-implicit": Encoder("dcmconv +ti", "Implicit VR Little Endian"),
    "dcmtk-big-endian": Encoder("dcmconv +tb", "Explicit VR Big Endian"),
    "dcmtk-deflated": Encoder("dcmconv +td", "Deflated Explicit VR Little Endian"),
    "dcmtk-no-meta": Encoder("dcmconv -F +ti", "Implicit VR Little Endian"),
    "dcmtk-rle": Encoder("dcmcrle", "RLE Lossless"),
    "dcmtk-jpeg-sv1": Encoder("dcmcjpeg +e1", "JPEG Lossless, Non-Hierarchical, First-Order"),
    "dcmtk-jpeg-14": Encoder("dcmcjpeg +el", "JPEG Lossless, Non-Hierarchical (Process 14)"),
    "dcmtk-jpeg-baseline": Encoder("dcmcjpeg +eb +q 98", "JPEG Baseline (Process 1)", 8, 6),
    "dcmtk-jpeg-extended": Encoder(
        "dcmcjpeg +ee +q 98", "JPEG Extended (Process 2 and 4)", tolerance=6
    ),
    "dcmtk-jpegls": Encoder("dcmcjpls +el", "JPEG-LS Lossless Image Compression"),
    "dcmtk-jpegls-near": Encoder(
        "dcmcjpls +en +md 2", "JPEG-LS Lossy (Near-Lossless)", tolerance=1
    ),
    "gdcm-raw": Encoder("gdcmconv --raw", "Explicit VR Little Endian"),
    "gdcm-rle": Encoder("gdcmconv --rle", "RLE Lossless"),
    "gdcm-jpeg": Encoder("gdcmconv --jpeg", "JPEG Lossless, Non-Hierarchical, First-Order"),
    "gdcm-jpegls": Encoder("gdcmconv --jpegls", "JPEG-LS Lossless Image Compression"),
    "gdcm-j2k": Encoder("gdcmconv --j2k", "JPEG 2000 Image Compression (Lossless Only)"),
    "gdcm-j2k-lossy": Encoder("gdcmconv -K -Y -q 90", "JPEG 2000 Image Compression", tolerance=6),
    "gdcm-jpeg-lossy": Encoder("gdcmconv -J -Y -q 98", "JPEG Baseline (Process 1)", 8, 6),
}
# Lossy encoders are tried on unsigned values only: what loss does to a sign bit is not ours.
CASES = [
    (name, signed)
    for name, encoder in ENCODERS.items()
    for signed in ((False,) if encoder.tolerance else (False, True))
]


def picture(bits: int, signed: bool) -> np.ndarray:
    """Smooth stored values (24, 32) over the whole range of `bits`.

    The whole range, for dcmtk's lossy encoders move the lowest value to 0.
    """
    y, x = np.mgrid[:24, :32]
    wave = np.sin(x / 7) * np.cos(y / 7)
    wave = (wave - wave.min()) / np.ptp(wave)
    return ((2**bits - 1) * wave).round().astype(int) - signed * 2 ** (bits - 1)


def file_name(name: str, signed: bool) -> str:
    return f"{name}{'-signed' * signed}.dcm"


def encode(name: str, signed: bool, folder: Path) -> Path:
    """Write the picture by pydicom, have the tool convert it, and return the tool's file."""
    encoder = ENCODERS[name]
    elements = {"BitsAllocated": 8} if encoder.bits == 8 else {}
    dataset = make_dataset(
        picture(encoder.bits, signed), PixelRepresentation=int(signed), **elements
    )
    source, target = folder / "plain.dcm", folder / file_name(name, signed)
    source.write_bytes(to_bytes(dataset))
    command = [*encoder.command.split(), source, target]
    subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    source.unlink()
    return target


if __name__ == "__main__":
    STORED.mkdir(exist_ok=True)
    for case in CASES:
        if shutil.which(ENCODERS[case[0]].tool) is None:
            raise SystemExit(f"{ENCODERS[case[0]].tool} is missing: install dcmtk, libgdcm-tools")
        print(encode(*case, STORED).name)
