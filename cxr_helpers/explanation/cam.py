"""Heatmaps of a Faster R-CNN's detections through pytorch-grad-cam, as its authors mean it.

Ablation-CAM runs the whole detector once for each channel of a layer, with that channel removed.
Proposals may then move, and so may the boxes. The score of a box is the library's: the detection
that overlaps it most counts with its IoU and its class probability if both fit, and with 0 if not.
So the map shows what holds the box in its place as well as what holds its class.

The map has the image's size and a maximum near 1, as the library scales it, so it can be laid over
the image and scored against its boxes as it is. The maps of `ablation_fast` have the size of the
layer, a few cells a side, and are not scaled: resize and normalize them before they are compared.

The library is used through its public classes. What is added: checks of the input, any layer by
name, pyramids of any width, silence, the channels' weights, padding cut off, and the detector left
as it was, even after an interruption.

Papers: Desai and Ramaswamy, Ablation-CAM, WACV 2020; Selvaraju et al., Grad-CAM,
https://arxiv.org/abs/1610.02391. Library: https://github.com/jacobgil/pytorch-grad-cam.

An image is gray, (H, W) or (1, H, W), or (3, H, W) with the channels alike; uint8, uint16 of the
full range, or float in [0, 1]. Boxes are xyxy in pixels of the image; labels count from 1. All may
be arrays, lists or tensors.

From cxr-helpers 0.1.0 (MIT license).
Needs: grad-cam, numpy, torch, torchvision.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pytorch_grad_cam import AblationCAM, GradCAM
from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerFasterRCNN
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

STAGES = ("layer1", "layer2", "layer3", "layer4")  # C2, C3, C4, C5 of the papers
PYRAMID = "pyramid"


class CamError(ValueError):
    """A detector, an image, a box or a layer that the library cannot explain."""


@dataclass(frozen=True)
class LibraryCam:
    """A heatmap as pytorch-grad-cam makes it.

    Attributes:
        heatmap: (H, W) float32 in [0, 1], of the image's size, whatever the layer's.
        weights: (C,) float32 of the layer's channels; those of the pyramid in the order of its
            levels.
    """

    heatmap: np.ndarray
    weights: np.ndarray


class PyramidAblationLayer(AblationLayerFasterRCNN):
    """pytorch-grad-cam's ablation of the pyramid, for a pyramid of any width.

    The library's own layer takes channel i to be channel i % 256 of level i // 256.

    Args:
        channels: width of the pyramid.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """The stored pyramid, with one channel ablated in each copy of the image."""
        names = list(self.activations)
        for row in range(self.activations["pool"].shape[0]):
            level, channel = divmod(int(self.indices[row]), self.channels)
            self.activations[names[level]][row, channel] = -1000  # the library's value
        return self.activations


class _KeepsWeights:
    """Remembers the weights, and stretches the map over the padded image instead of the image."""

    padded_wh: tuple[int, int]
    weights: np.ndarray

    def get_cam_weights(self, *arguments) -> np.ndarray:
        weights = super().get_cam_weights(*arguments)
        self.weights = np.asarray(weights)[0].astype(np.float32)
        return weights

    def get_target_width_height(self, input_tensor: Tensor) -> tuple[int, int]:
        return self.padded_wh


class _AblationCAM(_KeepsWeights, AblationCAM):
    pass


class _GradCAM(_KeepsWeights, GradCAM):
    pass


def ablation_cam(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    layer: str = "layer3",
    ratio: float = 1.0,
    batch_size: int = 16,
) -> LibraryCam:
    """Ablation-CAM of one detected box, or of several at once, such as all boxes of a class.

    Args:
        detector: a torchvision Faster R-CNN, in eval mode.
        image: (H, W), (1, H, W) or (3, H, W), see above; a tensor on the detector's device.
        boxes_xyxy: (n, 4) boxes that the detector finds in this image; their scores are summed.
        labels: their n classes.
        layer: `layer1` to `layer4` of the ResNet (C2 to C5), `pyramid` for all its levels at once,
            or the full name of any layer that gives one (1, C, h, w) tensor.
        ratio: the library ablates this share of the channels from either end of its own ranking,
            so that 0.5 already means all of them.
        batch_size: channels ablated in one run.

    Raises:
        CamError: the detector trains or is none; the image is of another shape, type or range, or
            on another device; a box has no area or is not found by the detector; there is no box;
            a label or the layer does not exist; or `ratio` or `batch_size` is out of range.
    """
    if not (0 < ratio <= 1 and batch_size >= 1):
        raise CamError(f"ratio {ratio} must be in (0, 1] and batch_size {batch_size} 1 or more")
    module, image, targets, padded_wh = _prepare(detector, image, boxes_xyxy, labels, layer)
    reshape, ablation = None, AblationLayer()
    if layer == PYRAMID:
        reshape = fasterrcnn_reshape_transform
        ablation = PyramidAblationLayer(detector.backbone.out_channels)
    options = {"batch_size": batch_size, "ratio_channels_to_ablate": ratio}
    try:
        with _AblationCAM(detector, [module], reshape, ablation, **options) as method:
            return _run(method, image, targets, padded_wh)
    finally:  # the library leaves its own layer in place when it is interrupted
        parent, _, name = _full_name(layer).rpartition(".")
        setattr(detector.get_submodule(parent), name, module)


def grad_cam(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    layer: str = "layer3",
) -> LibraryCam:
    """Grad-CAM of the same score: channels weighted by their mean gradient.

    Args:
        detector: as in `ablation_cam`, and so are the others.
        image: see there.
        boxes_xyxy: see there.
        labels: see there.
        layer: as in `ablation_cam`, but not `pyramid`: the library takes gradients of tensors only.

    Raises:
        CamError: as in `ablation_cam`; also for the pyramid.
    """
    if layer == PYRAMID:
        raise CamError("the library has no gradients of a whole pyramid; name one of its layers")
    module, image, targets, padded_wh = _prepare(detector, image, boxes_xyxy, labels, layer)
    gradients = [parameter.grad for parameter in detector.parameters()]
    try:
        with torch.enable_grad(), _GradCAM(detector, [module]) as method:
            return _run(method, image, targets, padded_wh)
    finally:  # the library leaves its gradients on the detector's weights
        for parameter, gradient in zip(detector.parameters(), gradients, strict=True):
            parameter.grad = gradient


def _run(
    method: _KeepsWeights,
    image: Tensor,
    targets: list[FasterRCNNBoxScoreTarget],
    padded_wh: tuple[int, int],
) -> LibraryCam:
    method.padded_wh = padded_wh
    height, width = image.shape[1:]
    with contextlib.redirect_stderr(io.StringIO()):  # the library always draws a bar
        heatmap = method(image[None], targets=targets)[0]
    return LibraryCam(heatmap[:height, :width].astype(np.float32), method.weights)


def _prepare(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    layer: str,
) -> tuple[nn.Module, Tensor, list[FasterRCNNBoxScoreTarget], tuple[int, int]]:
    """Layer, image, score, and the padded size in pixels of the image, after all refusals."""
    _check_detector(detector)
    image = _check_image(image, next(detector.parameters()).device)
    boxes, labels = _check_boxes(detector, boxes_xyxy, labels)
    module, found = _find_layer(detector, image, layer)
    for box, label in zip(boxes, labels, strict=True):
        score = FasterRCNNBoxScoreTarget(labels=[label], bounding_boxes=[box])
        if float(score(found)) <= 0:
            raise CamError(f"the detector finds no box of class {label} at {box.tolist()}")
    target = FasterRCNNBoxScoreTarget(labels=labels, bounding_boxes=list(boxes))
    batch, _ = detector.transform([image])
    (rows, columns), (own_rows, own_columns) = batch.tensors.shape[-2:], batch.image_sizes[0]
    height, width = image.shape[1:]
    padded_wh = round(width * columns / own_columns), round(height * rows / own_rows)
    return module, image, [target], padded_wh


def _check_image(image: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """(3, H, W) float32 in [0, 1] on the device."""
    if isinstance(image, Tensor) and image.device != device:
        raise CamError(f"the image is on {image.device}, the detector on {device}; move one")
    values = _unit(image).to(device)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[0] not in (1, 3) or 0 in values.shape:
        raise CamError(
            f"image of shape {tuple(np.shape(image))}; expected (H, W), (1, H, W) or (3, H, W)"
        )
    return values.expand(3, -1, -1)


def _unit(image: np.ndarray | Tensor) -> Tensor:
    """Gray values as float32 in [0, 1], but for rounding, where the image is."""
    try:
        image = image.detach() if isinstance(image, Tensor) else np.asarray(image)
    except ValueError as error:  # lists of several lengths
        raise CamError(f"the image is no one array: {error}") from None
    kind = str(getattr(image.dtype, "name", image.dtype)).removeprefix("torch.")
    if kind not in ("uint8", "uint16") and "float" not in kind:
        raise CamError(
            f"the image is {kind}; give uint8, uint16 of the full range, or float in [0, 1]"
        )
    if not isinstance(image, Tensor):
        image = torch.from_numpy(np.array(image, dtype=np.float32))
    values = image.float()
    if kind == "uint8" or not values.numel():
        return values / 255
    low, top = float(values.min()), float(values.max())
    if kind == "uint16" and 0 < top < 32768:
        raise CamError(
            f"the image is uint16 up to {top:g}, so it holds {int(top).bit_length()} bits only; "
            "scale it to 65535, or give floats in [0, 1]"
        )
    if kind == "uint16":
        return values / 65535
    if not (low >= -1e-3 and top <= 1 + 1e-3):
        raise CamError(
            f"the image has values from {low:g} to {top:g}; expected [0, 1], so give 8 bits as "
            "uint8, or divide them by 255"
        )
    return values


def _check_detector(detector: nn.Module) -> None:
    heads = getattr(detector, "roi_heads", None)
    if heads is None or not isinstance(heads.box_predictor, FastRCNNPredictor):
        raise CamError(f"{type(detector).__name__} has no torchvision box predictor to ask")
    if detector.training:
        raise CamError("the detector is in training mode; call detector.eval() first")


def _check_boxes(
    detector: nn.Module, boxes_xyxy: Sequence[Sequence[float]], labels: Sequence[int]
) -> tuple[np.ndarray, list[int]]:
    boxes = _array(boxes_xyxy, "boxes").astype(np.float32)
    if boxes.size == 0:
        raise CamError("there is no box to explain; lower the score threshold, or skip the image")
    labels = _whole(labels, detector.roi_heads.box_predictor.cls_score.out_features)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(labels):
        raise CamError(
            f"boxes of shape {boxes.shape} and {len(labels)} labels; expected (n, 4) and n"
        )
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise CamError(f"boxes {boxes.tolist()} are not all (x_min, y_min, x_max, y_max) with area")
    return boxes, labels


def _array(values, name: str) -> np.ndarray:
    """float64 of a list, an array, or a tensor of any device and type."""
    try:
        if isinstance(values, (list, tuple)):  # of tensors, perhaps
            return np.array([_array(one, name) for one in values], dtype=float)
        if isinstance(values, Tensor):
            values = values.detach().double().cpu()
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise CamError(f"the {name} are no numbers: {error}") from None


def _whole(labels, classes: int) -> list[int]:
    """Classes as int, each one that the detector has."""
    values = _array(labels, "labels")
    if values.ndim != 1:
        raise CamError(f"labels of shape {values.shape}; expected n, a list of them")
    for label in values:
        if not (1 <= label < classes and label == int(label)):
            raise CamError(
                f"label {label:g} is no class of this detector; 0 is background, the last is "
                f"{classes - 1}"
            )
    return [int(label) for label in values]


def _full_name(layer: str) -> str:
    if layer in STAGES:
        return f"backbone.body.{layer}"
    return "backbone" if layer == PYRAMID else layer


@torch.no_grad()
def _find_layer(
    detector: nn.Module, image: Tensor, layer: str
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The layer, and the detections, after a look at what the layer gives."""
    known = dict(detector.named_modules())
    if _full_name(layer) not in known:
        stages = [stage for stage in STAGES if f"backbone.body.{stage}" in known]
        body = [name for name in known if re.fullmatch(r"backbone\.body\.\w+", name)]
        raise CamError(
            f"the detector has no layer {layer!r}; name one of {', '.join([*stages, PYRAMID])}, or "
            f"in full one such as {body[-1:] or list(known)[1:2]}"
        )
    module = known[_full_name(layer)]
    outputs: list = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        found = detector([image])[0]
    finally:
        handle.remove()
    if layer == PYRAMID and not (isinstance(outputs[0], dict) and "pool" in outputs[0]):
        raise CamError("the detector's backbone gives no feature pyramid; name one of its layers")
    single = len(outputs) == 1 and isinstance(outputs[0], Tensor) and outputs[0].ndim == 4
    if not single and layer != PYRAMID:
        raise CamError(f"layer {layer!r} does not give one map (1, C, h, w) for an image")
    return module, found
