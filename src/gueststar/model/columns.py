"""Schemas of the catalogs: every column's name, type, unit and meaning, once.

Positions ``x, y`` are 0-based pixels with centres at integers; ``ra, dec`` degrees ICRS at the epoch of
the exposure; fluxes nJy; ``flags`` are `SourceFlag` bits. ``_err`` is one sigma.
"""

from __future__ import annotations

import numpy as np

from gueststar.model.catalog import Column, Schema
from gueststar.model.streak_columns import STREAK as STREAK

_ID = (
    Column("x", "f8", "pixel", "position, x"),
    Column("y", "f8", "pixel", "position, y"),
    Column("x_err", "f4", "pixel", "error of x"),
    Column("y_err", "f4", "pixel", "error of y"),
    Column("ra", "f8", "deg", "right ascension"),
    Column("dec", "f8", "deg", "declination"),
    Column("ra_err", "f4", "arcsec", "error of right ascension on the sky (cos dec included)"),
    Column("dec_err", "f4", "arcsec", "error of declination"),
)

SOURCE = Schema(
    "source",
    (
        Column("source_id", "i8", "", "identifier, unique in the survey, the same on a rerun"),
        *_ID,
        Column("psf_flux", "f8", "nJy", "flux by PSF fit"),
        Column("psf_flux_err", "f4", "nJy", "error of psf_flux"),
        Column("mag", "f4", "mag", "AB magnitude of psf_flux (colour term for colour 0), NaN if not positive"),
        Column("mag_err", "f4", "mag", "error of mag"),
        Column("snr", "f4", "", "signal to noise of the detection in the matched filter"),
        Column("chi2", "f4", "", "reduced chi-square of the PSF fit"),
        Column("sharpness", "f4", "", "0 for a point source, positive if wider, negative if sharper than the PSF"),
        Column("sky", "f4", "electron", "background that was subtracted here"),
        Column("n_iterations", "i2", "", "pass of the iterative subtraction in which it was found, from 0"),
        Column("flags", "i4", "", "SourceFlag bits"),
    ),
)
"""Sources measured by PSF fitting."""

APERTURE = Schema(
    "aperture_source",
    (
        Column("source_id", "i8", "", "identifier, unique in the survey, the same on a rerun"),
        *_ID,
        Column("ap_flux_1", "f8", "nJy", "flux in the 1st aperture (diameters are in the table's metadata)"),
        Column("ap_flux_err_1", "f4", "nJy", "error of ap_flux_1"),
        Column("ap_flux_2", "f8", "nJy", "flux in the 2nd aperture"),
        Column("ap_flux_err_2", "f4", "nJy", "error of ap_flux_2"),
        Column("ap_flux_3", "f8", "nJy", "flux in the 3rd aperture"),
        Column("ap_flux_err_3", "f4", "nJy", "error of ap_flux_3"),
        Column("ap_flux_4", "f8", "nJy", "flux in the 4th aperture"),
        Column("ap_flux_err_4", "f4", "nJy", "error of ap_flux_4"),
        Column("total_flux", "f8", "nJy", "flux in an elliptical (Kron) aperture"),
        Column("total_flux_err", "f4", "nJy", "error of total_flux"),
        Column("kron_radius", "f4", "pixel", "Kron radius"),
        Column("mag", "f4", "mag", "AB magnitude of total_flux, NaN if not positive"),
        Column("mag_err", "f4", "mag", "error of mag"),
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
"""Sources measured by apertures and moments (total flux of galaxies too)."""

DIA_SOURCE = Schema(
    "dia_source",
    (
        Column("dia_source_id", "i8", "", "identifier; equals candid on the wire"),
        Column("visit", "i8", "", "visit id"),
        Column("detector", "i4", "", "detector id"),
        Column("mjd_tai", "f8", "day", "middle of the exposure"),
        Column("band_id", "i4", "", "filter number (fid)"),
        Column("program", "i4", "", "access category of the exposure"),
        *_ID,
        Column("is_positive", "?", "", "brighter than the reference"),
        Column("snr", "f4", "", "score at the peak over its noise there, signed"),
        Column("psf_flux", "f8", "nJy", "PSF flux on the difference image, signed"),
        Column("psf_flux_err", "f4", "nJy", "error of psf_flux"),
        Column("chi2", "f4", "", "reduced chi-square of the PSF fit"),
        Column("sharpness", "f4", "", "0 for a point source, positive if wider, negative if sharper"),
        Column("ap_flux", "f8", "nJy", "aperture flux, signed (8 pixels diameter or 3 FWHM)"),
        Column("ap_flux_err", "f4", "nJy", "error of ap_flux"),
        Column("ap_big_flux", "f8", "nJy", "aperture flux in a wide aperture, signed"),
        Column("ap_big_flux_err", "f4", "nJy", "error of ap_big_flux"),
        Column("sky", "f4", "nJy", "local residual background per pixel"),
        Column("fwhm", "f4", "pixel", "width of a Gaussian fit"),
        Column("a_image", "f4", "pixel", "semi-major axis, second moments"),
        Column("b_image", "f4", "pixel", "semi-minor axis, second moments"),
        Column("theta_deg", "f4", "deg", "angle of the major axis from +x towards +y"),
        Column("class_star", "f4", "", "star-likeness from 0 to 1"),
        Column("edge_distance", "f4", "pixel", "distance to the nearest edge of the image"),
        Column("n_negative", "i4", "", "negative pixels in a 5 x 5 box"),
        Column("n_bad", "i4", "", "masked pixels in a 5 x 5 box"),
        Column(
            "sum_ratio",
            "f4",
            "",
            "sum of pixels over sum of their absolute values, 5 x 5 box, sign of detection",
        ),
        Column("surrounding_rms", "f4", "", "rms of the score about it; 1 where the images match"),
        Column("pixel_excess", "f4", "", "0: the highest pixel is as a point source's; 1: all is in that pixel"),
        Column("pixel_excess_snr", "f4", "", "significance of pixel_excess"),
        Column(
            "plain_flux",
            "f4",
            "nJy",
            "PSF flux on science minus reference as they are, less what the seeing makes of constant light, signed",
            default=np.nan,
        ),
        Column("dipole_flux_positive", "f4", "nJy", "flux of the positive lobe of a dipole fit"),
        Column("dipole_flux_negative", "f4", "nJy", "flux of the negative lobe of a dipole fit"),
        Column("dipole_separation", "f4", "pixel", "distance of the lobes"),
        Column("dipole_chi2_ratio", "f4", "", "chi-square of the dipole fit over that of the PSF fit"),
        Column("trail_length", "f4", "pixel", "length of a trail fit (PSF-convolved line)"),
        Column("trail_angle_deg", "f4", "deg", "angle of the trail from +x towards +y"),
        Column("trail_chi2_ratio", "f4", "", "chi-square of the trail fit over that of the PSF fit"),
        Column("science_flux", "f8", "nJy", "PSF flux on the science image at this place"),
        Column("science_flux_err", "f4", "nJy", "error of science_flux"),
        Column("reference_distance", "f4", "arcsec", "to the nearest reference source; NaN if none within 30"),
        Column("reference_mag", "f4", "mag", "its magnitude"),
        Column("reference_mag_err", "f4", "mag", "its error"),
        Column("reference_chi2", "f4", "", "its reduced chi-square"),
        Column("reference_sharpness", "f4", "", "its sharpness"),
        Column("bright_distance", "f4", "arcsec", "to the nearest bright catalog star; NaN if none"),
        Column("bright_mag", "f4", "mag", "its magnitude"),
        Column("reliability", "f4", "", "score from 0 (artefact) to 1 (real)"),
        Column("dia_object_id", "i8", "", "the dia_object it belongs to; 0 before association"),
        Column("flags", "i4", "", "SourceFlag bits"),
        Column("stamp_reliability", "f4", "", "score of the cut-outs alone; NaN where there are none", np.nan),
    ),
)
"""Detections on difference images."""

DIA_OBJECT = Schema(
    "dia_object",
    (
        Column("dia_object_id", "i8", "", "identifier"),
        Column("ra", "f8", "deg", "mean right ascension"),
        Column("dec", "f8", "deg", "mean declination"),
        Column("ra_err", "f4", "arcsec", "error of the mean on the sky"),
        Column("dec_err", "f4", "arcsec", "error of the mean"),
        Column("n_dia_sources", "i4", "", "detections so far"),
        Column("first_mjd_tai", "f8", "day", "first detection"),
        Column("last_mjd_tai", "f8", "day", "last detection"),
    ),
)
"""Things that changed, made of dia_sources at one place."""

FORCED_SOURCE = Schema(
    "forced_source",
    (
        Column("dia_object_id", "i8", "", "the object at whose place the flux was measured"),
        Column("visit", "i8", "", "visit id"),
        Column("detector", "i4", "", "detector id"),
        Column("mjd_tai", "f8", "day", "middle of the exposure"),
        Column("band_id", "i4", "", "filter number (fid)"),
        Column("program", "i4", "", "access category of the exposure"),
        Column("x", "f8", "pixel", "position, x"),
        Column("y", "f8", "pixel", "position, y"),
        Column("psf_flux", "f8", "nJy", "forced PSF flux on the difference image, signed"),
        Column("psf_flux_err", "f4", "nJy", "error of psf_flux"),
        Column("limiting_mag", "f4", "mag", "5-sigma limit of the difference image here"),
        Column("chi2", "f4", "", "reduced chi-square of the PSF at this place"),
        Column("flags", "i4", "", "SourceFlag bits"),
    ),
)
"""Fluxes at given places, whether or not anything was detected."""

FORCED_PHOTOMETRY = Schema(
    "forced_photometry",
    (
        Column("place", "i8", "", "number of the place as the user gave it, or its row"),
        Column("visit", "i8", "", "visit id"),
        Column("detector", "i4", "", "detector id"),
        Column("mjd_tai", "f8", "day", "middle of the exposure"),
        Column("ra", "f8", "deg", "right ascension of the place"),
        Column("dec", "f8", "deg", "declination of the place"),
        Column("x", "f8", "pixel", "the place on the image, x"),
        Column("y", "f8", "pixel", "the place on the image, y"),
        Column("psf_flux", "f8", "nJy", "PSF flux on the science image, signed; NaN where no pixel is usable"),
        Column("psf_flux_err", "f4", "nJy", "error of psf_flux"),
        Column("chi2", "f4", "", "reduced chi-square of the PSF at this place, neighbours subtracted"),
        Column("sky", "f4", "electron", "background left over about the place, which was subtracted"),
        Column("flags", "i4", "", "SourceFlag bits; BLENDED where a neighbour was fitted at the same time"),
    ),
)
"""Fluxes on science images at places that a user gave, whether or not anything was detected."""

REFCAT = Schema(
    "refcat",
    (
        Column("ref_id", "i8", "", "identifier in the source catalog"),
        Column("ra", "f8", "deg", "right ascension at epoch"),
        Column("dec", "f8", "deg", "declination at epoch"),
        Column("ra_err", "f4", "mas", "error of right ascension on the sky"),
        Column("dec_err", "f4", "mas", "error of declination"),
        Column("pm_ra", "f4", "mas/yr", "proper motion in right ascension, cos dec included; 0 if unknown"),
        Column("pm_dec", "f4", "mas/yr", "proper motion in declination"),
        Column("epoch", "f4", "yr", "Julian year of the position"),
        Column("parallax", "f4", "mas", "parallax; 0 if unknown", default=0.0),
        Column("mag_g", "f4", "mag", "AB magnitude, NaN if unknown"),
        Column("mag_g_err", "f4", "mag", "its error"),
        Column("mag_r", "f4", "mag", "AB magnitude, NaN if unknown"),
        Column("mag_r_err", "f4", "mag", "its error"),
        Column("mag_i", "f4", "mag", "AB magnitude, NaN if unknown"),
        Column("mag_i_err", "f4", "mag", "its error"),
        Column("mag_z", "f4", "mag", "AB magnitude, NaN if unknown"),
        Column("mag_z_err", "f4", "mag", "its error"),
        Column("is_extended", "?", "", "not a point source"),
        Column("is_variable", "?", "", "known or suspected variable: not for calibration"),
        Column("star_score", "f4", "", "0 galaxy to 1 star, as the catalog grades it; NaN if it does not", np.nan),
    ),
)
"""Reference catalogs, HEALPix-sharded."""

REFERENCE_CHANGE = Schema(
    "reference_change",
    (
        Column("ra", "f8", "deg", "right ascension"),
        Column("dec", "f8", "deg", "declination"),
        Column("old_flux", "f8", "nJy", "PSF flux on the version before"),
        Column("old_flux_err", "f4", "nJy", "its error"),
        Column("new_flux", "f8", "nJy", "PSF flux on the new version"),
        Column("new_flux_err", "f4", "nJy", "its error"),
        Column("change", "f8", "nJy", "new less old: by so much the difference fluxes of an object there drop"),
        Column("change_err", "f4", "nJy", "its error"),
    ),
)
"""Places of the static sky whose flux a new version of a reference changed."""

INJECTED = Schema(
    "injected_source",
    (
        Column("injected_id", "i4", "", "number within the image, from 0"),
        Column("x", "f8", "pixel", "true position, x"),
        Column("y", "f8", "pixel", "true position, y"),
        Column("ra", "f8", "deg", "true right ascension"),
        Column("dec", "f8", "deg", "true declination"),
        Column("mag", "f4", "mag", "true AB magnitude"),
        Column("flux", "f8", "nJy", "true flux"),
        Column("trail_length", "f4", "pixel", "length of a trailed source; 0: a star"),
        Column("trail_angle_deg", "f4", "deg", "angle of the trail from +x towards +y"),
        Column(
            "place", "i4", "", "0: put anywhere on the usable pixels; 1: beside a known source; 2: near a bright star"
        ),
        Column("surface_mag", "f4", "mag/arcsec2", "brightness of the static sky there, NaN where only noise is seen"),
        Column("bright_star_arcsec", "f4", "arcsec", "distance to the nearest bright star; NaN if there is none"),
        Column("is_source_found", "?", "", "is in the PSF catalog, at its place with its flux to a factor of two"),
        Column("source_flux", "f8", "nJy", "PSF flux there; NaN if not found"),
        Column("source_flux_err", "f4", "nJy", "its error"),
        Column("is_source_by_chance", "?", "", "the catalog of the real image alone would have matched it"),
        Column("is_differenced", "?", "", "lies where the difference image can be used"),
        Column("is_candidate_found", "?", "", "is a positive detection on the difference image, place and flux alike"),
        Column("candidate_flux", "f8", "nJy", "PSF flux on the difference image; NaN if not found"),
        Column("candidate_flux_err", "f4", "nJy", "its error"),
        Column("candidate_snr", "f4", "", "significance on the score image; NaN if not found"),
        Column("reliability", "f4", "", "score of the candidate; NaN if not found"),
        Column("is_likely_alert", "?", "", "score and flags would let it become an alert"),
        Column("is_candidate_by_chance", "?", "", "the real candidates alone would have matched it"),
    ),
)
"""Artificial sources put into an image, and what the pipeline made of them."""

TRACKLET = Schema(
    "tracklet",
    (
        Column("tracklet_id", "i8", "", "identifier, made of its detections'"),
        Column("n_detections", "i4", "", "detections that it links, trails among them"),
        Column("mjd_tai", "f8", "day", "mean time"),
        Column("ra", "f8", "deg", "right ascension at that time"),
        Column("dec", "f8", "deg", "declination at that time"),
        Column("rate_arcsec_per_min", "f8", "arcsec/min", "speed on the sky"),
        Column("rate_err", "f4", "arcsec/min", "its error"),
        Column("position_angle_deg", "f8", "deg", "direction of motion, from north over east"),
        Column("position_angle_err", "f4", "deg", "its error"),
        Column("span_min", "f4", "min", "time from the first to the last detection"),
        Column("mag", "f4", "mag", "median AB magnitude"),
        Column("mag_scatter", "f4", "mag", "standard deviation of the magnitudes"),
        Column("chi2", "f4", "", "reduced chi-square of straight, even motion"),
        Column("false_probability", "f4", "", "that unrelated detections made such a link, or that one trail is none"),
        Column("n_trailed", "i4", "", "streaks with both ends seen among its detections"),
        Column("is_sense_known", "?", "", "false: one trail alone, which may have moved the other way"),
    ),
)
"""Detections of one night that move straight and evenly."""
