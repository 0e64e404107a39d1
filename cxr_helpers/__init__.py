"""Helpers for the course on self-supervised learning for chest radiographs.

A room for each chapter; copy a file with the files beside it that its docstring names, or a room:

- `data` (01): `dicom.read_dicom`, `nih.read_entries`, `vindr.read_readings`,
  `consensus.fuse_readings`, `splits.split_by_patient`, `packed.pack_images`
- `phantom` (01): `draw_patient`, `draw_acquisition`, `render`
- `pretraining` (02): `barlow.BarlowTwins`, `views.TwoViews`, `weights.read_weights`
- `evaluation` (03): `probe.fit_probe`, `scoring.macro_auroc`, `intervals.bootstrap`
- `detection` (04): `detector.build_detector`, `metrics.match_detections`, `froc.froc_curve`
- `explanation` (05): `cam.ablation_cam`, `ablation_fast.ablate_box`, `heatmaps.energy_in_box`

The table 'Which helper for what' in docs/api/index.md also says what library to take instead, and
when. What belongs to the course and not to radiographs lives in `cxr_helpers.course`, which needs
the extra `course`.
"""

__version__ = "0.2.0"
