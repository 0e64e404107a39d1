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
be arrays, lists or tensors. What cannot be explained raises `inputs.ExplanationError`.

>>> from torchvision.models.detection import FasterRCNN, backbone_utils
>>> backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
>>> small = {"min_size": 64, "max_size": 64, "rpn_post_nms_top_n_test": 20}
>>> detector = FasterRCNN(backbone, num_classes=3, **small).eval()
>>> found = detector([torch.zeros(3, 64, 64)])[0]
>>> asked = detector, np.zeros((64, 64)), found["boxes"][:1], found["labels"][:1]
>>> grad_cam(*asked, layer="layer4").heatmap.shape
(64, 64)
>>> ablation_cam(*asked, layer="layer1", batch_size=64).weights.shape
(64,)

From cxr-helpers 0.2.0 (MIT license).
Needs: grad-cam, numpy, torch, torchvision.
Goes with: inputs.py, layers.py.
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

from .inputs import ExplanationError, check_labeled_boxes, images_for
from .layers import DEFAULT_LAYER, PYRAMID, STAGES, full_name


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
    layer: str = DEFAULT_LAYER,
    ratio: float = 1.0,
    batch_size: int = 16,
) -> LibraryCam:
    """Ablation-CAM of one detected box, or of several at once, such as all boxes of a class.

    Args:
        detector: a torchvision Faster R-CNN, in eval mode.
        image: (H, W), (1, H, W) or (3, H, W), see above; a tensor on the detector's device.
        boxes_xyxy: (n, 4) boxes that the detector finds in this image; their scores are summed.
        labels: their n classes.
        layer: of `layers.LAYERS`, `pyramid` for all its levels at once; or the full name of any
            layer that gives one (1, C, h, w) tensor.
        ratio: the library ablates this share of the channels from either end of its own ranking,
            so that 0.5 already means all of them.
        batch_size: channels ablated in one run.

    Raises:
        ExplanationError: the detector trains or is none; the image is of another shape, type or
            range, or on another device; a box has no area or is not found by the detector; there
            is no box; a label or the layer does not exist; or `ratio` or `batch_size` is out of
            range.
    """
    if not (0 < ratio <= 1 and batch_size >= 1):
        raise ExplanationError(
            f"ratio {ratio} must be in (0, 1] and batch_size {batch_size} 1 or more"
        )
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
        parent, _, name = full_name(layer).rpartition(".")
        setattr(detector.get_submodule(parent), name, module)


def grad_cam(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    layer: str = DEFAULT_LAYER,
) -> LibraryCam:
    """Grad-CAM of the same score: channels weighted by their mean gradient.

    Arguments and errors are those of `ablation_cam`, but the pyramid is refused: the library takes
    gradients of tensors only.
    """
    if layer == PYRAMID:
        raise ExplanationError(
            "the library has no gradients of a whole pyramid; name one of its layers"
        )
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
    heads = getattr(detector, "roi_heads", None)
    if heads is None or not isinstance(heads.box_predictor, FastRCNNPredictor):
        raise ExplanationError(f"{type(detector).__name__} has no torchvision box predictor to ask")
    if detector.training:
        raise ExplanationError("the detector is in training mode; call detector.eval() first")
    device = next(detector.parameters()).device
    image = torch.from_numpy(images_for(device, image)[0]).to(device).expand(3, -1, -1)
    height, width = image.shape[1:]
    classes = heads.box_predictor.cls_score.out_features
    boxes, labels = check_labeled_boxes(
        boxes_xyxy, labels, image_hw=(height, width), class_count=classes
    )
    if not len(boxes):
        raise ExplanationError(
            "there is no box to explain; lower the score threshold, or skip the image"
        )
    module, found = _find_layer(detector, image, layer)
    for box, label in zip(boxes, labels, strict=True):
        score = FasterRCNNBoxScoreTarget(labels=[label], bounding_boxes=[box])
        if float(score(found)) <= 0:
            raise ExplanationError(f"the detector finds no box of class {label} at {box.tolist()}")
    target = FasterRCNNBoxScoreTarget(labels=labels, bounding_boxes=list(boxes))
    batch, _ = detector.transform([image])
    (rows, columns), (own_rows, own_columns) = batch.tensors.shape[-2:], batch.image_sizes[0]
    padded_wh = round(width * columns / own_columns), round(height * rows / own_rows)
    return module, image, [target], padded_wh


@torch.no_grad()
def _find_layer(
    detector: nn.Module, image: Tensor, layer: str
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The layer, and the detections, after a look at what the layer gives."""
    known = dict(detector.named_modules())
    if full_name(layer) not in known:
        stages = [stage for stage in STAGES if f"backbone.body.{stage}" in known]
        body = [name for name in known if re.fullmatch(r"backbone\.body\.\w+", name)]
        raise ExplanationError(
            f"the detector has no layer {layer!r}; name one of {', '.join([*stages, PYRAMID])}, or "
            f"in full one such as {body[-1:] or list(known)[1:2]}"
        )
    module = known[full_name(layer)]
    outputs: list = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        found = detector([image])[0]
    finally:
        handle.remove()
    if layer == PYRAMID and not (isinstance(outputs[0], dict) and "pool" in outputs[0]):
        raise ExplanationError(
            "the detector's backbone gives no feature pyramid; name one of its layers"
        )
    single = len(outputs) == 1 and isinstance(outputs[0], Tensor) and outputs[0].ndim == 4
    if not single and layer != PYRAMID:
        raise ExplanationError(f"layer {layer!r} does not give one map (1, C, h, w) for an image")
    return module, found
