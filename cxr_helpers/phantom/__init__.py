"""A phantom of the frontal chest radiograph: images in which the findings are known (chapter 1).

Copy the whole folder. `draw_patient`, `draw_acquisition` and `draw_lesion` draw what `render` makes
an image and boxes of.
"""

from .scene import (
    FINDINGS,
    SITES,
    Acquisition,
    Box,
    Lesion,
    Patient,
    Radiograph,
    draw_acquisition,
    draw_lesion,
    draw_patient,
    render,
)

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
