"""Faster R-CNN on radiographs: detector, its data, average precision, FROC, errors (chapter 4)."""
