"""What notebook 02 calls and nobody copies: Barlow Twins pretraining."""
