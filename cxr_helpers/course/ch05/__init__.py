"""What notebook 05 calls and nobody copies: Ablation-CAM."""
