"""Helpers for the course on self-supervised learning for chest radiographs.

Each module of this package can be copied alone into another project: it imports no sibling.
What belongs to the course and not to radiographs lives in `cxr_helpers.course`.
"""

__version__ = "0.1.0"
