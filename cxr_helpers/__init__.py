"""Helpers for the course on self-supervised learning for chest radiographs.

A room for each chapter: `data` and `phantom` (01), `pretraining` (02), `evaluation` (03),
`detection` (04), `explanation` (05). Copy a file with the files beside it that its docstring names,
or a whole room. What belongs to the course and not to radiographs lives in `cxr_helpers.course`.
"""

__version__ = "0.1.0"
