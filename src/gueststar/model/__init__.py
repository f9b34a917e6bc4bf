"""Typed values that cannot be built wrong."""
