"""Counts to magnitudes."""
