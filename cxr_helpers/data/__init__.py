"""Radiographs and their tables: DICOM, NIH, VinDr-CXR, consensus, splits, data sets (chapter 1)."""
