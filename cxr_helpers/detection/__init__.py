"""Faster R-CNN on radiographs (chapter 4).

- Network: `backbone` (another one is built there), `anchors`, `detector` (settings, the network
  put together, its file), `training`, `prediction`, `augmentation`.
- Scores: `boxes` (IoU and the check of what comes in), `metrics` (average precision on resamples),
  `coco` and `coco_files` (COCO's own figures and files), `froc`, `errors`.
- Before any detector: `box_probe` (what do frozen features of a box know?).
"""
