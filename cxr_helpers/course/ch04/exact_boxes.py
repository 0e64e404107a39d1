"""Where the demo's findings really are: the boxes that the phantoms were drawn with.

Nobody knows this of a real radiograph. Readers' boxes scatter around them and leave some out, so
they tell what a perfect detector could reach against the readers.
"""

import importlib
import json
import sys
from types import ModuleType

import numpy as np
import pandas as pd

from cxr_helpers import phantom
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.settings import Settings, SettingsError

CORNERS = ["x_min", "y_min", "x_max", "y_max"]


def exact_boxes(
    settings: Settings, data: BoxData, rows: np.ndarray
) -> list[dict[str, np.ndarray]] | None:
    """The true boxes of these images, drawn again from the demo's seed, as detections.

    Args:
        settings: name the folder of the demo.
        data: gives the images.
        rows: of the images, some 40 a second.

    Returns:
        One dict for each row: `boxes` in packed pixels, `labels` from 1, `scores` that are all 1.
        None where the data are no demo: then nobody knows.

    Raises:
        SettingsError: the demo was made by another version of the script: readers' boxes that are
            drawn again are not those of its table.
    """
    folder = None if settings.vindr is None else settings.vindr.parent
    if folder is None or not (folder / "demo.json").is_file():
        return None
    made = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    maker = _maker(settings)
    plans = {one["id"]: one for one in maker.vindr_rows(made["seed"], made["n_vindr"])}
    names = [data.images.image_ids[row] for row in rows]
    exact, readers = [], []
    for plan in (plans[name] for name in names if name in plans):
        boxes, by_reader = _draw_again(maker, made["seed"], plan)
        exact += boxes
        readers += by_reader
    columns = ["image_id", "label", "reader_id", *CORNERS]
    known = data.readings.boxes[data.readings.boxes["image_id"].isin(names)][columns]
    if not set(known.itertuples(index=False, name=None)) <= set(map(tuple, readers)):
        raise SettingsError(
            f"{folder} was made by another version of make_demo.py, so its exact boxes cannot be "
            "drawn again; move the demo away and make it anew"
        )
    found = data.truths(rows, pd.DataFrame(exact, columns=["image_id", "label", *CORNERS]))
    return [one | {"scores": np.ones(len(one["labels"]))} for one in found]


def _maker(settings: Settings) -> ModuleType:
    folder = str(settings.project / "data_scripts")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("demo_vindr")
    finally:
        sys.path.remove(folder)


def _draw_again(maker: ModuleType, seed: int, plan: dict) -> tuple[list[list], list[list]]:
    """Exact boxes and readers' boxes of an image; the draws are those of demo_vindr.py, in order.

    Returns:
        Rows of image, class and corners; and of image, class, reader and corners; in file pixels.
    """
    if not plan["marks"]:
        return [], []
    rng = maker.seeded(seed, 31, plan["number"])
    age = float(np.clip(rng.normal(58, 16), 16, 92))
    sex = "M" if rng.uniform() < 0.52 else "F"
    patient = phantom.draw_patient(seed, 1_000_000 + plan["number"], sex=sex, age=age)
    image_hw, field_cm = maker.draw_shape(rng)
    view = "AP" if rng.uniform() < 0.12 else "PA"
    acquisition = phantom.draw_acquisition(
        seed, patient.number, 0, site="vindr", view=view, image_hw=image_hw, field_cm=field_cm
    )
    lesions = maker.draw_lesions(rng, patient, plan["marks"])
    made = phantom.render(patient, acquisition, tuple(lesion for _, lesion in lesions))
    found: dict[int, list[phantom.Box]] = {}
    for (class_id, _), box in zip(lesions, made.boxes, strict=True):
        if box is not None:
            found.setdefault(class_id, []).append(box)
    readers = []
    for reader in plan["readers"]:
        for class_id, by_reader in sorted(plan["marks"].items()):
            if by_reader.get(reader) and class_id in found:
                name = maker.VINDR_CLASSES[class_id]
                jitter, count = maker.READER_JITTER[name], by_reader[reader]
                drawn = maker.reader_boxes(rng, found[class_id], count, jitter, image_hw)
                readers += [[plan["id"], name, reader, *map(float, box)] for box in drawn]
    names = {class_id: maker.VINDR_CLASSES[class_id] for class_id in found}
    exact = [[plan["id"], names[k], *map(float, box.xyxy)] for k in found for box in found[k]]
    return exact, readers
