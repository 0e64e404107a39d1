"""What features are worth: probe, scores, fine-tuning, calibration, intervals (chapter 3)."""
