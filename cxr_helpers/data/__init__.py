"""Chest radiographs and their tables: DICOM, NIH ChestX-ray14, VinDr-CXR, consensus, splits, data sets (chapter 1)."""
