"""Schemas of instrumental catalogs: electrons and pixels, before astrometry and zero point.

Positions ``x, y`` are 0-based pixels with centres at integers; fluxes in the image's unit (electrons of the
exposure); ``flags`` are `SourceFlag` bits. ``_err`` is one sigma.
"""

from __future__ import annotations

from gueststar.model.catalog import Column, Schema

_PLACE = (
    Column("x", "f8", "pixel", "position, x"),
    Column("y", "f8", "pixel", "position, y"),
    Column("x_err", "f4", "pixel", "error of x"),
    Column("y_err", "f4", "pixel", "error of y"),
)

INSTRUMENTAL_SOURCE = Schema(
    "instrumental_source",
    (
        *_PLACE,
        Column("flux", "f8", "electron", "flux by PSF fit"),
        Column("flux_err", "f4", "electron", "error of flux"),
        Column("snr", "f4", "", "signal to noise of the detection in the matched filter"),
        Column("chi2", "f4", "", "reduced chi-square of the PSF fit"),
        Column("sharpness", "f4", "", "0 for a point source, positive if wider, negative if sharper than the PSF"),
        Column("sharpness_err", "f4", "", "error of sharpness"),
        Column("sky", "f4", "electron", "residual background around the source, per pixel"),
        Column("n_iterations", "i2", "", "pass of the iterative subtraction in which it was found, from 0"),
        Column("flags", "i4", "", "SourceFlag bits"),
    ),
)
"""Sources measured by PSF fitting."""

INSTRUMENTAL_APERTURE = Schema(
    "instrumental_aperture_source",
    (
        *_PLACE,
        Column("ap_flux_1", "f8", "electron", "flux in the 1st aperture (diameters are in the metrics)"),
        Column("ap_flux_err_1", "f4", "electron", "error of ap_flux_1"),
        Column("ap_flux_2", "f8", "electron", "flux in the 2nd aperture"),
        Column("ap_flux_err_2", "f4", "electron", "error of ap_flux_2"),
        Column("ap_flux_3", "f8", "electron", "flux in the 3rd aperture"),
        Column("ap_flux_err_3", "f4", "electron", "error of ap_flux_3"),
        Column("ap_flux_4", "f8", "electron", "flux in the 4th aperture"),
        Column("ap_flux_err_4", "f4", "electron", "error of ap_flux_4"),
        Column("total_flux", "f8", "electron", "flux in an elliptical (Kron) aperture"),
        Column("total_flux_err", "f4", "electron", "error of total_flux"),
        Column("kron_radius", "f4", "pixel", "Kron radius"),
        Column("fwhm", "f4", "pixel", "full width at half maximum, Gaussian core"),
        Column("a_image", "f4", "pixel", "semi-major axis, second moments"),
        Column("b_image", "f4", "pixel", "semi-minor axis, second moments"),
        Column("theta_deg", "f4", "deg", "angle of the major axis from +x towards +y"),
        Column("area", "i4", "pixel", "pixels above the detection threshold"),
        Column("peak", "f4", "electron", "highest pixel above the sky"),
        Column("class_star", "f4", "", "star-likeness from 0 (extended) to 1 (point source)"),
        Column("flags", "i4", "", "SourceFlag bits"),
    ),
)
"""Sources measured by apertures and moments."""

PSF_STAR = Schema(
    "psf_star",
    (
        Column("x", "f8", "pixel", "position, x"),
        Column("y", "f8", "pixel", "position, y"),
        Column("flux", "f8", "electron", "flux by PSF fit"),
        Column("chi2", "f4", "", "reduced chi-square with the final model"),
        Column("size", "f4", "pixel^2", "trace of the adaptive second moments; NaN where not measured"),
        Column("size_difference", "f4", "", "fractional difference of size, star minus model"),
        Column("e1_difference", "f4", "", "difference of ellipticity e1, star minus model"),
        Column("e2_difference", "f4", "", "difference of ellipticity e2, star minus model"),
        Column("is_reserved", "?", "", "kept aside to validate the model"),
        Column("is_used", "?", "", "the model was fitted to it"),
    ),
)
"""Stars from which the PSF was made, and those that test it."""
