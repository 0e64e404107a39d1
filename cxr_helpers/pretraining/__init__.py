"""Barlow Twins: views, loss, training module, weights in and out (chapter 2)."""
