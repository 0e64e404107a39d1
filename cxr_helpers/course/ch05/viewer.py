"""The viewer of notebook 05: pick an image, a box, a way, a layer, an arm and a threshold.

`draw` makes one picture, and `viewer` puts widgets around it.
"""

import io
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from cxr_helpers.course.ch05 import explained
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.plots import ch05
from cxr_helpers.explanation import heatmaps
from cxr_helpers.explanation.layers import DEFAULT_LAYER, LAYER_NAMES

Arms = Mapping[str, tuple[nn.Module, Sequence[explained.Finding]]]


def draw(
    axis: Axes,
    detector: nn.Module,
    data: BoxData,
    item: explained.Finding,
    *,
    way: str,
    layer: str,
    level: float,
) -> None:
    """One finding's map, the readers' boxes, the detected box, and the line of the threshold.

    Args:
        axis: to draw on.
        detector: whose map it is.
        data: gives the image.
        item: the finding.
        way: channel or cell ablation.
        layer: of `layers.LAYERS`.
        level: threshold as a share of the map's maximum.
    """
    heatmap = explained.heatmap_of(explained.ways(detector, layer=layer)[way], data, item)
    value = heatmaps.iou_at(heatmap, item.readers, level=level)
    ch05.show_heatmap(
        axis, data.images.picture(item.row), heatmap, title=f"IoU {value:.2f}",
        truth_boxes=item.readers, found_boxes=item.box[None], level=level,
    )  # fmt: skip


def viewer(arms: Arms, data: BoxData, *, level: float = 0.5) -> widgets.Widget:
    """Widgets around `draw`; a new choice draws a new picture.

    Args:
        arms: for each arm its detector and findings; arms without findings are left out.
        data: gives the images.
        level: threshold at the start.

    Raises:
        ValueError: no arm has a finding.
    """
    arms = {name: pair for name, pair in arms.items() if len(pair[1])}
    if not arms:
        raise ValueError("no arm has a finding to show; lower the score threshold")
    arm = widgets.Dropdown(options=list(arms), description="arm")
    image = widgets.Dropdown(description="image")
    box = widgets.Dropdown(description="box")
    way = widgets.Dropdown(options=[explained.CELLS, explained.CHANNELS], description="way")
    layer = widgets.Dropdown(
        options=[(name, layer) for layer, name in LAYER_NAMES.items()],
        value=DEFAULT_LAYER,
        description="layer",
    )
    threshold = widgets.FloatSlider(
        value=level, min=0.05, max=0.95, step=0.05, description="threshold", continuous_update=False
    )
    picture = widgets.Image(format="png", layout={"width": "420px"})

    def list_images(*_) -> None:
        rows = sorted({item.row for item in arms[arm.value][1]})
        options = [(data.images.image_ids[row], row) for row in rows]
        _keep_choice(image, options)
        list_boxes()

    def list_boxes(*_) -> None:
        here = [item for item in arms[arm.value][1] if item.row == image.value]
        _keep_choice(box, [(f"{i.name} {i.score:.2f}", i.label) for i in here])
        redraw()

    def redraw(*_) -> None:
        detector, items = arms[arm.value]
        item = explained.by_key(items).get((image.value, box.value))
        if item is None:  # between two choices, when the boxes are still the last image's
            return
        figure, axis = plt.subplots(figsize=(4.2, 4.4))
        chosen = {"way": way.value, "layer": layer.value, "level": threshold.value}
        draw(axis, detector, data, item, **chosen)
        picture.value = _png(figure)

    arm.observe(list_images, "value")
    image.observe(list_boxes, "value")
    for control in (box, way, layer, threshold):
        control.observe(redraw, "value")
    list_images()
    return widgets.HBox([widgets.VBox([arm, image, box, way, layer, threshold]), picture])


def _keep_choice(control: widgets.Dropdown, options: list[tuple[str, int]]) -> None:
    """New options; the old choice stays where it still exists."""
    values = [value for _, value in options]
    chosen = control.value if control.value in values else values[0]
    if control.options != tuple(options):
        control.options = options
    control.value = chosen


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()
