"""Fluxes, by apertures and by PSF fits."""
