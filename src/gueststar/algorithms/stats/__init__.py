"""Robust statistics."""
