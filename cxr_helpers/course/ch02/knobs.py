"""A short pretraining run with some settings turned, by name or by slider."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import clear_output, display
from matplotlib.figure import Figure

from cxr_helpers.course.ch02 import labs, pretraining
from cxr_helpers.course.core.data import NihData
from cxr_helpers.course.core.settings import Settings

KNOBS = ("redundancy_weight", "min_crop", "batch_size")
SLIDERS = {  # from, to, step
    "redundancy_weight": (-4, 2, 0.1),
    "min_crop": (0.08, 1.0, 0.02),
    "batch_size": (4, 256, 4),
    "width": (8, 512, 8),
    "steps": (24, 600, 24),
}


def with_knobs(settings: Settings, data: NihData, knobs: Mapping[str, float]) -> labs.LabRun:
    """A short run with some settings turned; it is measured on the views of the settings.

    Args:
        settings: preset and seed of the run to compare with.
        data: its training part is used, and its validation part to measure.
        knobs: `steps`, and any of `redundancy_weight`, `min_crop`, `batch_size`, and `width`, the
            number of outputs D.

    Raises:
        ValueError: there is no such knob, or a value of one does not fit the data or the network.
    """
    turned = dict(knobs)
    steps, width = int(turned.pop("steps")), turned.pop("width", None)
    if unknown := sorted(set(turned) - set(KNOBS)):
        raise ValueError(f"no knob {unknown[0]!r}; there are steps, width, {', '.join(KNOBS)}")
    if width is not None:
        turned["projector"] = (*settings.pretrain.projector[:2], int(width))
    measure = pretraining.watch(settings, data)
    settings = replace(settings, pretrain=replace(settings.pretrain, **turned))
    pixels = np.array(data.images.pixels[data.rows("train")])
    return labs.short_run(settings, pixels, steps=steps, measure=measure)


def knob_panel(train: Callable[[dict], Figure], knobs: Mapping[str, float]) -> widgets.Widget:
    """A slider for each knob, and a button that trains and shows the figure below.

    Args:
        train: called with the knobs as they stand; gives a figure.
        knobs: where the sliders begin.

    Raises:
        ValueError: there is no slider for a knob.
    """
    if unknown := sorted(set(knobs) - set(SLIDERS)):
        raise ValueError(f"no slider for {unknown[0]!r}; there are {', '.join(SLIDERS)}")
    sliders = {name: _slider(name, value) for name, value in knobs.items()}
    button, shown = widgets.Button(description="Train"), widgets.Output()

    def clicked(_: widgets.Button) -> None:
        button.disabled, button.description = True, "Training ..."
        try:
            with shown:
                figure = train({name: slider.value for name, slider in sliders.items()})
                clear_output(wait=True)
                display(figure)
                plt.close(figure)
        finally:
            button.disabled, button.description = False, "Train"

    button.on_click(clicked)
    return widgets.VBox([*sliders.values(), button, shown])


def _slider(name: str, value: float) -> widgets.Widget:
    low, high, step = SLIDERS[name]
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    if name == "redundancy_weight":  # its ends are powers of ten
        kind = widgets.FloatLogSlider
    style = {"description_width": "9em"}
    return kind(value=value, min=low, max=high, step=step, description=name, style=style)
