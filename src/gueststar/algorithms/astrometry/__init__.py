"""Pixels to sky."""
