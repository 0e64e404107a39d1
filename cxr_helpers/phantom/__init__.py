"""A phantom of the frontal chest radiograph: synthetic images in which the findings are known.

An image is made as a radiograph is. A patient's anatomy is drawn once (`draw_patient`); each image
draws its own acquisition (`draw_acquisition`); `render` computes thickness maps in centimeters
(soft tissue, lung, bone, metal), attenuates the beam through them (Beer-Lambert), adds scatter,
quantum noise and blur, and applies a site's processing. Findings (`draw_lesion`) change the
thickness maps, and their boxes are measured on the change that they make.

Coordinates: centimeters in the detector plane, x to the right of the image (the patient's left),
y down, origin at the midline and the height of the lung apices. `u` runs from the medial (0) to
the lateral (1) border of a lung and `f` from its apex (0) to its lateral base (1).
All boxes are `(x_min, y_min, x_max, y_max)` in pixels.

What it is not: the shapes are plausible, not measured, the physics is that of one effective photon
energy, and no clinical conclusion may be drawn from it.

Copy the whole folder: shapes, patient, scene, findings, image, in the order in which they build on
each other.
"""

from .findings import FINDINGS, Box, Lesion, draw_lesion
from .image import Radiograph, render
from .patient import SITES, Acquisition, Patient, draw_acquisition, draw_patient

__all__ = [
    "FINDINGS",
    "SITES",
    "Acquisition",
    "Box",
    "Lesion",
    "Patient",
    "Radiograph",
    "draw_acquisition",
    "draw_lesion",
    "draw_patient",
    "render",
]
