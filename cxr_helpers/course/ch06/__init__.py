"""What notebook 06 calls and nobody copies: own data and the paper's scale."""
