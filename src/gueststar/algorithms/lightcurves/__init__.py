"""Fluxes through time."""
