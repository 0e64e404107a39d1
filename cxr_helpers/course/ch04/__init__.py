"""What notebook 04 calls and nobody copies: Faster R-CNN."""
