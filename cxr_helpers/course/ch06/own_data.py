"""Your own images in the form that pretraining takes, from three things that only you know.

Which files there are, how one is read, and whose it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr_helpers.course.core.data import NIH_PARTS, SplitImages, pack_once
from cxr_helpers.course.core.settings import Settings, SettingsError
from cxr_helpers.data import splits
from cxr_helpers.data.packed import PackedImages


@dataclass(frozen=True)
class OwnImages(SplitImages):
    """Images without labels, split by patient.

    Attributes:
        images: the pixels.
        patients: (N,) patient of each image.
        split: (N,) `train`, `val` or `test`.
        labels: None, since pretraining needs none.
    """

    images: PackedImages
    patients: np.ndarray
    split: np.ndarray
    labels: None = None


def own_images(
    settings: Settings,
    *,
    name: str,
    files: Mapping[str, str | Path],
    read: Callable[[Path], np.ndarray],
    patient: Callable[[str], object],
) -> tuple[Settings, OwnImages]:
    """Read every file once, pack it, and split by patient.

    Args:
        settings: the preset's `cache_size` is the side of the packed images in pixels.
        name: of the data; results go to runs/NAME.
        files: path of each image id; ids are text or whole numbers.
        read: path to an (H, W) array, as `packed.pack_images` takes it; a function of a module,
            since several processes read. A file that it raises for is set aside.
        patient: image id (as text) to the patient; images of one patient stay together.

    Returns:
        Settings whose results go to a folder of their own, and the images.

    Raises:
        SettingsError: there is no file, the name is taken by the demo or is no folder's name, or
            `patient` fails for an image.
        CacheError: no file could be read.
        SplitError: there are too few patients, or an image has none.
    """
    if not len(files):
        raise SettingsError(f"{name}: no files were given; does the folder hold images?")
    if name in ("", ".", "..", "demo") or Path(name).name != name:
        raise SettingsError(f"the name {name!r} cannot be used; take a word other than `demo`")
    if not hasattr(files, "items"):
        raise SettingsError(
            f"{name}: files must map image ids to paths, not be a {type(files).__name__}"
        )
    paths = {str(image_id): Path(path) for image_id, path in files.items()}
    if len(paths) < len(files):
        ids = [str(image_id) for image_id, _ in files.items()]
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise SettingsError(f"{name}: two files have the id {twice!r}; give each one of its own")
    patient_of = {image_id: _ask(patient, image_id) for image_id in paths}
    # Ids that no split takes show before hours of packing.
    splits.check_split([name] * len(patient_of), [*patient_of.values()])
    own = replace(settings, data=name, nih=None, vindr=None)
    size = own.pretrain.cache_size
    images = pack_once(own, next(iter(paths.values())).parent, name, paths, read, size)
    patients = [patient_of[image_id] for image_id in images.image_ids]
    split = splits.split_by_patient(patients, parts=NIH_PARTS, seed=own.split_seed)
    return own, OwnImages(images, np.array(patients), split)


def _ask(patient: Callable[[str], object], image_id: str) -> object:
    try:
        return patient(image_id)
    except Exception as error:  # of a user's function, so of any kind
        raise SettingsError(
            f"`patient` fails for image {image_id!r} ({type(error).__name__}: {error}); it must "
            "give every image a patient"
        ) from error
