"""Ablation-CAM and its kin: heatmaps of a detector, their scores, sanity checks (chapter 5)."""
