"""Heatmaps of a Faster R-CNN's detections through pytorch-grad-cam, as its authors mean it.

Ablation-CAM runs the whole detector once for each channel of a layer, with that channel removed.
Proposals may then move, and so may the boxes. The score of a box is the library's: the detection
that overlaps it most counts with its IoU and its class probability if both fit, and with 0 if not.
So the map shows what holds the box in its place as well as what holds its class.

The library is used through its public classes. What is added: checks of the input, any layer by
name, pyramids of any width, silence, the channels' weights, padding cut off, and the detector left
as it was, even after an interruption.

Papers: Desai and Ramaswamy, Ablation-CAM, WACV 2020; Selvaraju et al., Grad-CAM,
https://arxiv.org/abs/1610.02391. Library: https://github.com/jacobgil/pytorch-grad-cam.

Boxes are xyxy in pixels of the image; labels count from 1.

Needs: grad-cam, numpy, torch, torchvision.
"""

import contextlib
import io
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
        heatmap: (H, W) float32 in [0, 1], over the image.
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
    image: Tensor,
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
        image: (3, H, W) float32 in [0, 1], on the detector's device.
        boxes_xyxy: (n, 4) boxes that the detector finds in this image; their scores are summed.
        labels: their n classes.
        layer: `layer1` to `layer4` of the ResNet (C2 to C5), `pyramid` for all its levels at once,
            or the full name of any layer that gives one (1, C, h, w) tensor.
        ratio: the library ablates this share of the channels from either end of its own ranking,
            so that 0.5 already means all of them.
        batch_size: channels ablated in one run.

    Raises:
        CamError: the detector trains or is none; the image is on another device; a box has no
            area or is not found by the detector; there is no box; a label or the layer does not
            exist.
    """
    module, targets, padded_wh = _prepare(detector, image, boxes_xyxy, labels, layer)
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
    image: Tensor,
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
    module, targets, padded_wh = _prepare(detector, image, boxes_xyxy, labels, layer)
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
    image: Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    layer: str,
) -> tuple[nn.Module, list[FasterRCNNBoxScoreTarget], tuple[int, int]]:
    """The layer, the score, and the padded size in pixels of the image, after all refusals."""
    _check_detector(detector)
    device = next(detector.parameters()).device
    if image.ndim != 3 or image.shape[0] != 3 or image.device != device:
        raise CamError(
            f"image of shape {tuple(image.shape)} on {image.device}; expected (3, H, W) on {device}"
        )
    boxes = _check_boxes(detector, boxes_xyxy, labels)
    module, found = _find_layer(detector, image, layer)
    for box, label in zip(boxes, labels, strict=True):
        score = FasterRCNNBoxScoreTarget(labels=[label], bounding_boxes=[box])
        if float(score(found)) <= 0:
            raise CamError(f"the detector finds no box of class {label} at {box.tolist()}")
    target = FasterRCNNBoxScoreTarget(labels=list(labels), bounding_boxes=list(boxes))
    batch, _ = detector.transform([image])
    (rows, columns), (own_rows, own_columns) = batch.tensors.shape[-2:], batch.image_sizes[0]
    height, width = image.shape[1:]
    return module, [target], (round(width * columns / own_columns), round(height * rows / own_rows))


def _check_detector(detector: nn.Module) -> None:
    heads = getattr(detector, "roi_heads", None)
    if heads is None or not isinstance(heads.box_predictor, FastRCNNPredictor):
        raise CamError(f"{type(detector).__name__} has no torchvision box predictor to ask")
    if detector.training:
        raise CamError("the detector is in training mode; call detector.eval() first")


def _check_boxes(
    detector: nn.Module, boxes_xyxy: Sequence[Sequence[float]], labels: Sequence[int]
) -> np.ndarray:
    boxes = np.asarray(boxes_xyxy, dtype=np.float32)
    if not len(labels) or boxes.size == 0:
        raise CamError("there is no box to explain; lower the score threshold, or skip the image")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(labels):
        raise CamError(
            f"boxes of shape {boxes.shape} and {len(labels)} labels; expected (n, 4) and n"
        )
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise CamError(f"boxes {boxes.tolist()} are not all (x_min, y_min, x_max, y_max) with area")
    classes = detector.roi_heads.box_predictor.cls_score.out_features
    for label in labels:
        if not 1 <= label < classes:
            raise CamError(f"label {label} is no class of this detector; 0 is background")
    return boxes


def _full_name(layer: str) -> str:
    if layer in STAGES:
        return f"backbone.body.{layer}"
    return "backbone" if layer == PYRAMID else layer


@torch.no_grad()
def _find_layer(
    detector: nn.Module, image: Tensor, layer: str
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The layer, and the detections, after a look at what the layer gives."""
    try:
        module = detector.get_submodule(_full_name(layer))
    except AttributeError:
        raise CamError(
            f"the detector has no layer {layer!r}; name one of {', '.join(STAGES)}, {PYRAMID}, or "
            "a full name such as 'backbone.body.layer3.0.conv2'"
        ) from None
    outputs: list = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        found = detector([image])[0]
    finally:
        handle.remove()
    single = len(outputs) == 1 and isinstance(outputs[0], Tensor) and outputs[0].ndim == 4
    if not single and layer != PYRAMID:
        raise CamError(f"layer {layer!r} does not give one map (1, C, h, w) for an image")
    return module, found
