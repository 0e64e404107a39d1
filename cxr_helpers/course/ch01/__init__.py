"""What notebook 01 calls and nobody copies: looking at the data."""
