"""Made-up NIH data for the tests of linear evaluation and of the leakage lab."""

import numpy as np
import pandas as pd

from cxr_helpers.course.core.data import NihData
from cxr_helpers.data import nih
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.data.splits import split_by_patient
from cxr_helpers.evaluation.feature_cache import FrozenFeatures

N_PATIENTS = 120


def made_up_nih(seed=0):
    """120 patients with 3 images; two labels that belong to the patient, one very rare."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(N_PATIENTS), 3)
    sick = rng.random((N_PATIENTS, 2)) < 0.4
    findings = ["|".join(np.array(nih.LABELS[:2])[s]) or "No Finding" for s in sick[patients]]
    findings[0] = "Hernia"
    ids = [f"{p:08d}_{i % 3:03d}.png" for i, p in enumerate(patients)]
    entries = pd.DataFrame({"image_id": ids, "patient_id": patients, "findings": findings})
    pixels = rng.integers(0, 256, size=(len(ids), 16, 16), dtype=np.uint8)
    images = PackedImages(pixels, ids, np.full((len(ids), 2), 16), {})
    return NihData(entries, images, split_by_patient(patients, seed=0), "made up")


def person_features(data, *, informative):
    """Features that know the person, and the labels if `informative`."""
    rng = np.random.default_rng(1)
    person = rng.normal(size=(N_PATIENTS, 16))[data.patients]
    noise = 0.2 * rng.normal(size=person.shape)
    values = person + noise + informative * 3 * np.pad(data.labels[:, :2], ((0, 0), (0, 14)))
    return FrozenFeatures(values.astype(np.float32), data.images.image_ids)
