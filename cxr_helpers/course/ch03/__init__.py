"""What notebook 03 calls and nobody copies: linear evaluation."""
