"""Reference images: which epochs, which grid, the co-add."""
