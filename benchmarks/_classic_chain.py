"""The chain most surveys build today: numpy and astroscrappy, SExtractor, PSFEx, SExtractor again, SCAMP.

Each program runs as its authors ship it: default settings, but for the instrument's facts and a star-sized filter.
SCAMP is told the camera's distortion as it is known beforehand (``prior_distortion.json``; ours is not), without which
its radius of cross-identification loses the outer half of the detector. All run with one thread; CPU seconds are those
of each process. The Python step is timed inside a warm process, without imports.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PROGRAMS = ("source-extractor", "psfex", "scamp")
GAIN, READ_NOISE, SATURATION = 6.0, 9.0, 48000.0

_DETECTION = (
    "NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "ERRTHETAWIN_IMAGE",
    "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER(1)", "FLUXERR_APER(1)", "FLUX_RADIUS", "ELONGATION", "SNR_WIN", "FLAGS",
)  # fmt: skip
_VIGNETTE = [*_DETECTION, "VIGNET(25,25)"]
_APERTURES = [*_DETECTION, "MAG_APER(4)", "MAG_AUTO", "CLASS_STAR", "A_IMAGE", "B_IMAGE", "THETA_IMAGE"]
_PSF = ["X_IMAGE", "Y_IMAGE", "XPSF_IMAGE", "YPSF_IMAGE", "FLUX_PSF", "FLUXERR_PSF", "CHI2_PSF", "FLAGS"]
_FILTER = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"


def missing_programs() -> list[str]:
    """Return the programs of the chain that are not installed (Debian: source-extractor, psfex, scamp)."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass
class ClassicResult:
    """What the chain made of one exposure, positions 0-based, fluxes in electrons."""

    x: Floats
    y: Floats
    flux: Floats
    flux_err: Floats
    sky_x: Floats
    """Positions that were measured for the astrometry (windowed centres), 0-based, and where they are on the sky."""
    sky_y: Floats
    ra: Floats
    dec: Floats
    sky_snr: Floats
    cosmic_rays: NDArray[np.bool_]
    seconds: dict[str, float] = field(default_factory=dict)
    """CPU seconds by step."""
    peak_mb: float = 0.0


class ClassicChain:
    """Runs the chain on exposures of one field in a folder of its own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "star.conv").write_text(_FILTER)
        for name, columns in (("vignette", _VIGNETTE), ("aperture", _APERTURES), ("psf", _PSF)):
            (folder / f"{name}.param").write_text("\n".join(columns) + "\n")
        self._write_reference()
        self._write_prior()
        self.seconds: dict[str, float] = {}
        self.peak_mb = 0.0

    def run(self, epoch: int) -> ClassicResult:
        """Reduce one exposure; RuntimeError names a program that failed."""
        self.seconds, self.peak_mb = {}, 0.0
        rays = self._detrend(epoch)
        self._extract("vignette", "vignette.cat", "first detection")
        self._call("PSF", "psfex", "vignette.cat", "-c", _none(self.folder, "psfex"), "-CHECKPLOT_TYPE", "NONE",
                   "-CHECKIMAGE_TYPE", "NONE", "-WRITE_XML", "N", "-NTHREADS", "1")  # fmt: skip
        self._extract("aperture", "aperture.cat", "aperture catalog")
        self._extract("psf", "psf.cat", "PSF catalog", "-PSF_NAME", "vignette.psf")
        self._call("astrometry", "scamp", "aperture.cat", "-c", _none(self.folder, "scamp"), "-ASTREF_CATALOG", "FILE",
                   "-ASTREFCAT_NAME", "reference.cat", "-POSITION_MAXERR", "3", "-POSANGLE_MAXERR", "2",
                   "-DISTORT_DEGREES", "4", "-CHECKPLOT_TYPE", "NONE", "-WRITE_XML", "N", "-NTHREADS", "1")  # fmt: skip
        return self._result(rays)

    def _detrend(self, epoch: int) -> NDArray[np.bool_]:
        """Subtract overscan and bias, divide by the flat, find cosmic rays, write; as numpy users do it."""
        import astroscrappy

        begin = time.process_time()
        with fits.open(self.data / f"sci{epoch:02d}_raw.fits.fz") as hdus:
            raw, header = hdus[1].data.astype(np.float32), hdus[1].header
        flat, bad = fits.getdata(self.data / "cal_flat.fits.fz"), fits.getdata(self.data / "cal_badpix.fits.fz") > 0
        is_saturated = raw[:, :3072] >= SATURATION
        image = raw[:, :3072] - np.median(raw[:, 3072:], axis=1)[:, None]
        image = (image - fits.getdata(self.data / "cal_bias.fits.fz")) / np.where(flat > 0.1, flat, 1.0)
        self.seconds["overscan, bias, flat"] = time.process_time() - begin
        begin = time.process_time()
        rays, image = astroscrappy.detect_cosmics(
            image, inmask=bad | is_saturated, gain=GAIN, readnoise=READ_NOISE, satlevel=SATURATION
        )
        image /= GAIN
        self.seconds["cosmic rays"] = time.process_time() - begin
        begin = time.process_time()
        cards = _kept_cards(header)
        flags = bad * 1 + rays * 2 + is_saturated * 4
        fits.writeto(self.folder / "image.fits", image.astype(np.float32), cards, overwrite=True)
        fits.writeto(self.folder / "weight.fits", (~bad).astype(np.float32), overwrite=True)
        fits.writeto(self.folder / "flags.fits", flags.astype(np.int16), overwrite=True)
        self.seconds["write"] = time.process_time() - begin
        return np.asarray(rays, dtype=bool)

    def _extract(self, columns: str, catalog: str, step: str, *more: str) -> None:
        self._call(
            step, "source-extractor", "image.fits", "-c", _none(self.folder, "sex"), "-PARAMETERS_NAME",
            f"{columns}.param", "-CATALOG_NAME", catalog, "-CATALOG_TYPE", "FITS_LDAC", "-FILTER_NAME", "star.conv",
            "-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "weight.fits", "-FLAG_IMAGE", "flags.fits",
            "-SATUR_LEVEL", str(SATURATION - 2000.0), "-SATUR_KEY", "NONE", "-GAIN", str(GAIN), "-GAIN_KEY", "NONE",
            "-PIXEL_SCALE", "1.01", "-SEEING_FWHM", "2.2", "-PHOT_APERTURES", "6,8,12,20", "-BACK_SIZE", "128",
            "-MEMORY_OBJSTACK", "60000", "-MEMORY_PIXSTACK", "6000000", "-MEMORY_BUFSIZE", "3080",
            "-STARNNW_NAME", "/usr/share/source-extractor/default.nnw", "-NTHREADS", "1", "-VERBOSE_TYPE", "QUIET",
            *more,
        )  # fmt: skip

    def _call(self, step: str, *words: str) -> None:
        process = subprocess.Popen(words, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{words[0]} ended with {process.returncode}: {said.decode(errors='replace')[-300:]}")
        self.seconds[step] = usage.ru_utime + usage.ru_stime
        self.peak_mb = max(self.peak_mb, usage.ru_maxrss / 1024.0)

    def _result(self, rays: NDArray[np.bool_]) -> ClassicResult:
        psf = fits.getdata(self.folder / "psf.cat", 2)
        apertures = fits.getdata(self.folder / "aperture.cat", 2)
        is_fitted = psf["FLUX_PSF"] != 0
        psf = psf[is_fitted]
        wcs = self._solution()
        ra, dec = wcs.all_pix2world(apertures["XWIN_IMAGE"], apertures["YWIN_IMAGE"], 1)
        snr = apertures["FLUX_AUTO"] / np.maximum(apertures["FLUXERR_AUTO"], 1e-9)
        return ClassicResult(
            _plain(psf["XPSF_IMAGE"]) - 1.0, _plain(psf["YPSF_IMAGE"]) - 1.0, _plain(psf["FLUX_PSF"]) * GAIN,
            _plain(psf["FLUXERR_PSF"]) * GAIN, _plain(apertures["XWIN_IMAGE"]) - 1.0,
            _plain(apertures["YWIN_IMAGE"]) - 1.0, _plain(ra), _plain(dec), _plain(snr), rays, dict(self.seconds),
            self.peak_mb,
        )  # fmt: skip

    def _solution(self) -> WCS:
        """Return SCAMP's solution: its header over the image's own."""
        header = fits.getheader(self.folder / "image.fits")
        text = (self.folder / "aperture.head").read_text(encoding="latin-1")
        cards = [line for line in text.splitlines() if not line.startswith(("HISTORY", "COMMENT"))]
        solved = fits.Header.fromstring("\n".join(cards), sep="\n")
        for key in ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2", "CTYPE1", "CTYPE2"):
            header[key] = solved[key]
        for key in solved:
            if key.startswith(("PV1_", "PV2_")):
                header[key] = solved[key]
        return WCS(header)

    def _write_prior(self) -> None:
        """Write what is known of the distortion beforehand where SCAMP looks for it."""
        terms = json.loads((self.data / "prior_distortion.json").read_text())
        cards = ["CTYPE1  = 'RA---TPV'", "CTYPE2  = 'DEC--TPV'"]
        cards += [f"{name:8}= {value:20.13E}" for name, value in terms.items()]
        (self.folder / "aperture.ahead").write_text("\n".join([*cards, "END", ""]))

    def _write_reference(self) -> None:
        stars = fits.getdata(self.data / "refcat.fits.gz", 1)
        position_error = np.asarray(stars["e_pos_mas"], dtype=np.float64) / 3.6e6
        columns = {
            "X_WORLD": stars["ra"], "Y_WORLD": stars["dec"], "ERRA_WORLD": position_error,
            "ERRB_WORLD": position_error, "ERRTHETA_WORLD": np.zeros(len(stars)), "MAG": stars["r"],
            "MAGERR": stars["e_r"], "OBSDATE": np.full(len(stars), 2024.2),
        }  # fmt: skip
        table = [fits.Column(name, "1D", array=_plain(values)) for name, values in columns.items()]
        header = fits.Header([("EQUINOX", 2000.0)]).tostring(endcard=True, padding=True)
        head = fits.BinTableHDU.from_columns(
            [fits.Column("Field Header Card", f"{len(header)}A", array=np.array([header]))],
            name="LDAC_IMHEAD",
        )
        objects = fits.BinTableHDU.from_columns(table, name="LDAC_OBJECTS")
        fits.HDUList([fits.PrimaryHDU(), head, objects]).writeto(self.folder / "reference.cat", overwrite=True)


def _plain(values: NDArray[np.generic]) -> Floats:
    return np.array(values, dtype=np.float64)


def _kept_cards(header: fits.Header) -> fits.Header:
    wanted = ("OBJECT", "FILTER", "EXPTIME", "MJD-OBS", "RADESYS", "EQUINOX", "CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2",
              "CRPIX1", "CRPIX2", "CUNIT1", "CUNIT2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")  # fmt: skip
    return fits.Header([header.cards[key] for key in wanted])


def _none(folder: Path, program: str) -> str:
    """Return the name of an empty configuration: every value is the program's default."""
    path = folder / f"{program}.conf"
    path.write_text("# defaults\n")
    return path.name
