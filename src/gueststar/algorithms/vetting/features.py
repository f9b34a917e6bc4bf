"""The features by which detections are scored: ratios only, so that a model serves cameras it never saw.

Lengths are in units of the PSF's width, fluxes in units of each other or of their errors. A feature that
cannot be measured is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.core.bits import SourceFlag

FEATURE_VERSION = 3
"""Rises when a feature changes its meaning; models name the version that they were trained on."""

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

_FAR = 30.0
_FWHM_PER_SIGMA = 2.3548
_FLAGS = ("EDGE", "SATURATED", "BAD_PIXEL", "COSMIC_RAY", "FIT_FAILED", "NEAR_BRIGHT_STAR", "SUSPECT")


class Feature(NamedTuple):
    """One feature: its name and meaning."""

    name: str
    doc: str


FEATURES = (
    Feature("log_snr", "decimal logarithm of the absolute significance"),
    Feature("log_chi2", "decimal logarithm of the reduced chi-square of the PSF fit"),
    Feature(
        "relative_chi2", "logarithm of the excess of chi-square over one, in units of the square of the significance"
    ),
    Feature("fit_to_score", "significance of the PSF fit over that of the matched filter"),
    Feature("width_ratio", "FWHM over that of the PSF"),
    Feature("elongation", "semi-major over semi-minor axis"),
    Feature("class_star", "star-likeness"),
    Feature("negative_fraction", "fraction of pixels of the wrong sign in the 5 x 5 box"),
    Feature("bad_fraction", "fraction of masked pixels in the 5 x 5 box"),
    Feature("sum_ratio", "sum of pixels over sum of their absolute values in the 5 x 5 box"),
    Feature("surrounding_rms", "logarithm of the rms of the score about the detection"),
    Feature("pixel_excess", "0 where the highest pixel is as a point source's, 1 where all is in that pixel"),
    Feature("pixel_excess_snr", "significance of that excess"),
    Feature("plain_ratio", "PSF flux on the plain difference, constant light taken off, over that on the difference"),
    Feature("aperture_ratio", "aperture flux over PSF flux"),
    Feature("big_aperture_ratio", "flux in the wide aperture over PSF flux"),
    Feature("dipole_balance", "weaker over stronger lobe of the dipole fit"),
    Feature("dipole_separation", "distance of the lobes over the PSF's width"),
    Feature("dipole_chi2_ratio", "chi-square of the dipole fit over that of the PSF fit"),
    Feature("trail_length", "length of the trail over the PSF's width"),
    Feature("trail_chi2_ratio", "chi-square of the trail fit over that of the PSF fit"),
    Feature("change", "logarithm of the absolute flux over the flux (or its error) on the science image"),
    Feature("science_snr", "significance on the science image, by inverse hyperbolic sine"),
    Feature("reference_distance", "distance to the nearest reference source over the PSF's width"),
    Feature("reference_contrast", "magnitude of the detection minus that of the nearest reference source"),
    Feature("bright_distance", "distance to the nearest bright star over the PSF's width"),
    Feature("bright_contrast", "magnitude of the detection minus that of the nearest bright star"),
    Feature("residual_sky", "local background over the noise of a pixel"),
    Feature("edge_distance", "distance to the edge over the PSF's width, cut at five"),
    Feature("is_positive", "1: brighter than the reference; 0: fainter"),
    *(Feature(f"flag_{name.lower()}", f"1 if SourceFlag.{name} is set") for name in _FLAGS),
)
"""All features in the order of the columns of `measure_features`."""

FEATURE_NAMES = tuple(feature.name for feature in FEATURES)


def measure_features(sources: Columns) -> Floats:
    """Return ``[n, n_features]`` of the detections of one image, given by the columns of `DIA_SOURCE`."""
    psf_fwhm, pixel_scale_arcsec = psf_width(sources), pixel_scale(sources)
    columns = _significance(sources) | _shape(sources, psf_fwhm) | _models(sources, psf_fwhm)
    columns |= _surroundings(sources, psf_fwhm, pixel_scale_arcsec)
    columns["is_positive"] = sources["is_positive"].astype(np.float64)
    for name in _FLAGS:
        columns[f"flag_{name.lower()}"] = ((sources["flags"] & int(SourceFlag[name])) != 0).astype(np.float64)
    matrix = np.stack([np.asarray(columns[name], dtype=np.float64) for name in FEATURE_NAMES], axis=1)
    return np.where(np.isfinite(matrix), matrix, np.nan)


def psf_width(sources: Columns) -> float:
    """Return the FWHM of the PSF (pixels) that the detections' widths were compared with; NaN if none tells.

    ``sharpness`` is the signed root of the excess of the squared width over the PSF's, so that width and
    sharpness together give the PSF's width back.
    """
    sharpness, sigma = _float(sources, "sharpness"), _float(sources, "fwhm") / _FWHM_PER_SIGMA
    variance = sigma**2 - np.sign(sharpness) * sharpness**2
    known = variance[np.isfinite(variance) & (variance > 0)]
    return float(_FWHM_PER_SIGMA * np.sqrt(np.median(known))) if known.size else np.nan


def pixel_scale(sources: Columns) -> float:
    """Return the side of a pixel (arcsec) from position errors in pixels and on the sky; NaN if none tells."""
    with np.errstate(divide="ignore", invalid="ignore"):
        on_sky = np.hypot(_float(sources, "ra_err"), _float(sources, "dec_err"))
        scale = on_sky / np.hypot(_float(sources, "x_err"), _float(sources, "y_err"))
    known = scale[np.isfinite(scale) & (scale > 0)]
    return float(np.median(known)) if known.size else np.nan


def _significance(sources: Columns) -> dict[str, Floats]:
    snr = np.maximum(np.abs(_float(sources, "snr")), 1.0)
    chi2 = np.maximum(_float(sources, "chi2"), 1e-3)
    flux = np.abs(_float(sources, "psf_flux"))
    science, science_err = _float(sources, "science_flux"), _float(sources, "science_flux_err")
    return {
        "log_snr": np.log10(snr),
        "log_chi2": np.log10(chi2),
        "relative_chi2": np.log10(np.maximum(chi2 - 1.0, 0.01)) - 2.0 * np.log10(snr),
        "fit_to_score": _ratio(flux, _float(sources, "psf_flux_err") * snr),
        "change": np.log10(np.clip(_ratio(flux, np.maximum(np.abs(science), science_err)), 1e-4, 1e4)),
        "science_snr": np.arcsinh(_ratio(science, science_err)),
    }


def _shape(sources: Columns, psf_fwhm: float) -> dict[str, Floats]:
    flux = _float(sources, "psf_flux")
    noise = _float(sources, "psf_flux_err") / (1.5 * psf_fwhm)  # of a pixel: the PSF spreads over about 2.3 FWHM**2
    return {
        "width_ratio": np.minimum(_float(sources, "fwhm") / psf_fwhm, 10.0),
        "elongation": np.minimum(_ratio(_float(sources, "a_image"), _float(sources, "b_image")), 10.0),
        "class_star": _float(sources, "class_star"),
        "negative_fraction": _float(sources, "n_negative") / 25.0,
        "bad_fraction": _float(sources, "n_bad") / 25.0,
        "sum_ratio": _float(sources, "sum_ratio"),
        "surrounding_rms": np.log10(np.clip(_float(sources, "surrounding_rms"), 0.1, 10.0)),
        "pixel_excess": np.clip(_float(sources, "pixel_excess"), -2.0, 2.0),
        "pixel_excess_snr": np.clip(_float(sources, "pixel_excess_snr"), -10.0, 30.0),
        "plain_ratio": np.clip(_ratio(_float(sources, "plain_flux"), _float(sources, "psf_flux")), -5.0, 5.0),
        "aperture_ratio": np.clip(_ratio(_float(sources, "ap_flux"), flux), -5.0, 5.0),
        "big_aperture_ratio": np.clip(_ratio(_float(sources, "ap_big_flux"), flux), -5.0, 5.0),
        "residual_sky": np.clip(_ratio(_float(sources, "sky"), noise), -5.0, 5.0),
    }


def _models(sources: Columns, psf_fwhm: float) -> dict[str, Floats]:
    positive, negative = (np.abs(_float(sources, f"dipole_flux_{sign}")) for sign in ("positive", "negative"))
    return {
        "dipole_balance": _ratio(np.minimum(positive, negative), np.maximum(positive, negative)),
        "dipole_separation": np.minimum(_float(sources, "dipole_separation") / psf_fwhm, _FAR),
        "dipole_chi2_ratio": _float(sources, "dipole_chi2_ratio"),
        "trail_length": np.minimum(_float(sources, "trail_length") / psf_fwhm, _FAR),
        "trail_chi2_ratio": _float(sources, "trail_chi2_ratio"),
    }


def _surroundings(sources: Columns, psf_fwhm: float, pixel_scale_arcsec: float) -> dict[str, Floats]:
    flux = np.abs(_float(sources, "psf_flux"))
    mag = -2.5 * np.log10(np.where(flux > 0, flux, np.nan)) + 31.4
    width_arcsec = psf_fwhm * pixel_scale_arcsec
    return {
        "reference_distance": np.minimum(_float(sources, "reference_distance") / width_arcsec, _FAR),
        "reference_contrast": np.clip(mag - _float(sources, "reference_mag"), -10.0, 15.0),
        "bright_distance": np.minimum(_float(sources, "bright_distance") / width_arcsec, 10 * _FAR),
        "bright_contrast": np.clip(mag - _float(sources, "bright_mag"), -10.0, 15.0),
        "edge_distance": np.minimum(_float(sources, "edge_distance") / psf_fwhm, 5.0),
    }


def _float(sources: Columns, name: str) -> Floats:
    return sources[name].astype(np.float64)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator != 0, numerator / denominator, np.nan)
