"""The point-spread function and how it varies."""
