"""Radiographs and their tables (chapter 1).

- `nih`, `vindr`: the tables of the two data sets as data frames (`tables` reads any CSV)
- `pictures`, `dicom`: one file as a gray picture (its parts: `dicom_header`, `dicom_decoding`)
- `consensus`, `splits`: one truth from several readers; parts that share no patient
- `packed`: every file decoded once (`gray` says what an image is, `workers` run the reading)
- `datasets`: images with boxes, as detectors take them
"""
