"""Small DICOM datasets for the tests, built in memory."""

import io
import struct

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset


def gradient(rows: int = 36, columns: int = 40, *, top: int = 4095) -> np.ndarray:
    """Return integers from 0 to `top`, different everywhere a decoder could go wrong."""
    y, x = np.mgrid[:rows, :columns]
    values = (x * 7 + y * 13 + (x * y) % 11 * 20) % (top + 1)
    values[0, 0], values[-1, -1] = 0, top
    return values


def make_dataset(stored: np.ndarray, *, syntax: uid.UID = uid.ExplicitVRLittleEndian, **elements):
    """Build a whole dataset around stored values; `elements` are added or override.

    An element of value None is left out.
    """
    signed = elements.get("PixelRepresentation", 0) == 1
    allocated = elements.get("BitsAllocated", 16)
    dataset = Dataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = allocated
    dataset.BitsStored = elements.get("BitsStored", 12 if allocated == 16 else allocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(signed)
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dtype = np.dtype(f"{order}{'i' if signed else 'u'}{allocated // 8}")
    data = stored.astype(dtype).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if allocated == 16 else "OB"
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    """Return the dataset as the bytes of a DICOM file."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def without_meta(data: bytes) -> bytes:
    """Cut preamble and file meta information off, as some exports do."""
    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    length = dataset.file_meta.FileMetaInformationGroupLength
    return data[128 + 4 + 12 + length :]


def lut_item(entries, *, first: int = 0, bits: int = 16, vr: str = "US") -> Dataset:
    """Build one item of a VOI or Modality LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", vr if vr != "OW" else "US", [len(entries) % 65536, first, bits])
    if vr == "OW":
        item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item


def with_element(data: bytes, keyword: str, vr: str, value: bytes) -> bytes:
    """Put an element of raw bytes into a file in Explicit VR Little Endian, in place of its own."""
    wanted = pydicom.datadict.tag_for_keyword(keyword)
    long = vr in ("OB", "OW", "SQ", "UN", "UT")
    length = len(value).to_bytes(4 if long else 2, "little")
    tag = struct.pack("<HH", wanted >> 16, wanted & 0xFFFF)
    element = tag + vr.encode() + b"\0\0" * long + length + value
    at = len(data) - len(without_meta(data))
    while at < len(data):
        group, number, other = struct.unpack("<HH2s", data[at : at + 6])
        start, head = at, 12 if other in (b"OB", b"OW", b"SQ", b"UN", b"UT") else 8
        at += head + int.from_bytes(data[at + (8 if head == 12 else 6) : at + head], "little")
        if group << 16 | number >= wanted:
            rest = at if group << 16 | number == wanted else start
            return data[:start] + element + data[rest:]
    return data + element
