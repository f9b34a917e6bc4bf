"""A picture of a camera's focal plane on the sky."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Amplifier, Camera, Detector, parse_section
from gueststar.model.wcs import Wcs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

_RA, _DEC = 180.0, 0.0


def draw_focal_plane(camera: Camera, path: str | Path) -> None:
    """Write a PNG, north up and east left: detectors, amplifiers, their first raw pixels (red), pixel axes (green)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for detector in camera.detectors:
        _draw_detector(axes, camera, detector)
    axes.margins(0.05)
    axes.set_aspect("equal", adjustable="box")
    _draw_compass(axes)
    axes.set_xlabel("offset towards west, arcmin")
    axes.set_ylabel("offset towards north, arcmin")
    axes.set_title(f"{camera.name}: detectors: {len(camera.detectors)}, {camera.pixel_scale_arcsec} arcsec a pixel")
    figure.savefig(path, dpi=110)


def offsets_arcmin(camera: Camera, detector: Detector, *, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return where pixels of a detector lie, arcmin west and north of the boresight on the tangent plane."""
    frame = Wcs.tangent(ra=_RA, dec=_DEC, x=0.0, y=0.0, scale_arcsec=60.0)
    ra, dec = camera.nominal_wcs(detector, ra=_RA, dec=_DEC).pixel_to_sky(x=x, y=y)
    return frame.sky_to_pixel(ra=ra, dec=dec)


def _draw_detector(axes: Axes, camera: Camera, detector: Detector) -> None:
    ny, nx = detector.shape
    _outline(axes, camera, detector, (-0.5, nx - 0.5, -0.5, ny - 0.5), color="black", linewidth=1.2)
    for amplifier in detector.amplifiers:
        rows, columns = parse_section(amplifier.detector_section)
        box = (columns.start - 0.5, columns.stop - 0.5, rows.start - 0.5, rows.stop - 0.5)
        if len(detector.amplifiers) > 1:
            _outline(axes, camera, detector, box, color="tab:blue", linewidth=0.6)
        west, north = offsets_arcmin(camera, detector, **_readout_corner(amplifier, box))
        axes.plot(west, north, "o", color="tab:red", markersize=4)
    origin = offsets_arcmin(camera, detector, x=np.array([0.05 * nx]), y=np.array([0.05 * ny]))
    for x, y, name in ((0.25, 0.05, "x"), (0.05, 0.25, "y")):
        tip = offsets_arcmin(camera, detector, x=np.array([x * nx]), y=np.array([y * ny]))
        _arrow(axes, origin, tip, name, color="tab:green")
    centre = offsets_arcmin(camera, detector, x=np.array([(nx - 1) / 2]), y=np.array([(ny - 1) / 2]))
    label = detector.name if detector.name == str(detector.id) else f"{detector.name}\n(id {detector.id})"
    axes.text(float(centre[0][0]), float(centre[1][0]), label, ha="center", va="center", fontsize=7)


def _readout_corner(amplifier: Amplifier, box: tuple[float, float, float, float]) -> dict[str, Floats]:
    """Return the pixel that is read first: the raw frame's (1, 1), a little inside."""
    inset_x, inset_y = 0.03 * (box[1] - box[0]), 0.03 * (box[3] - box[2])
    x = box[1] - inset_x if amplifier.flip_x else box[0] + inset_x
    y = box[3] - inset_y if amplifier.flip_y else box[2] + inset_y
    return {"x": np.array([x]), "y": np.array([y])}


def _outline(
    axes: Axes,
    camera: Camera,
    detector: Detector,
    box: tuple[float, float, float, float],
    *,
    color: str,
    linewidth: float,
) -> None:
    x = np.array([box[0], box[1], box[1], box[0], box[0]])
    y = np.array([box[2], box[2], box[3], box[3], box[2]])
    west, north = offsets_arcmin(camera, detector, x=x, y=y)
    axes.plot(west, north, color=color, linewidth=linewidth)


def _draw_compass(axes: Axes) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    size = 0.08 * max(right - left, top - bottom)
    axes.set_xlim(left, right + 2.0 * size)
    origin = (np.array([right + 1.2 * size]), np.array([top - 1.5 * size]))
    _arrow(axes, origin, (origin[0], origin[1] + size), "N", color="black")
    _arrow(axes, origin, (origin[0] - size, origin[1]), "E", color="black")


def _arrow(axes: Axes, start: tuple[Floats, Floats], tip: tuple[Floats, Floats], name: str, *, color: str) -> None:
    ends = [(float(point[0][0]), float(point[1][0])) for point in (start, tip)]
    axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops={"arrowstyle": "->", "color": color, "lw": 0.8})
    axes.text(*ends[1], name, color=color, fontsize=7, ha="center", va="center")
