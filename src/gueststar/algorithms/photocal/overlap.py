"""Images of one field put together: which detections are one star, and how the images' zero points differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def group_positions(positions: list[Floats], *, radius: float) -> list[Indices]:
    """Return for each image which star each of its detections is.

    ``positions`` are ``[n, k]`` in one plane or as unit vectors, image by image, in the unit of
    ``radius``. Images are taken in turn: a detection joins the nearest star within the radius (of the first
    detection of each) that no nearer one takes, or is a new star.
    """
    labels, known = [], np.zeros((0, positions[0].shape[1] if positions else 2))
    for places in positions:
        label = np.full(places.shape[0], -1, dtype=np.intp)
        if known.shape[0] and places.shape[0]:
            distance, star = cKDTree(known).query(places, distance_upper_bound=radius)
            order = np.argsort(distance, kind="stable")
            order = order[np.isfinite(distance[order])]
            _, first = np.unique(star[order], return_index=True)
            label[order[first]] = star[order[first]]
        new = np.flatnonzero(label < 0)
        label[new] = known.shape[0] + np.arange(new.size)
        known = np.concatenate([known, places[new]])
        labels.append(label)
    return labels


class Overlaps(NamedTuple):
    """Relative zero points and mean magnitudes of stars seen on several images."""

    offsets: Floats
    """To add to each image's magnitudes; the first image that has any star is 0."""
    magnitudes: Floats
    """Weighted means of the stars; NaN for stars never seen."""
    errors: Floats
    """Of the means, from the errors given and the scatter that was found."""
    reduced_chi2: Floats
    """Of each star about its mean, with the given errors alone; NaN for one detection."""
    n_linked: int
    """Images tied to the first through common stars, itself included."""


def solve_overlaps(
    image: Indices, star: Indices, magnitude: Floats, error: Floats, *, n_images: int, n_stars: int, rounds: int = 12
) -> Overlaps:
    """Return zero points and means that make the stars agree, robustly.

    One row a detection. Images that share no star with the first, even through others, keep offset 0.
    """
    offsets = np.zeros(n_images)
    linked = _linked_order(image, star, n_images)
    seen_on = [np.flatnonzero(image == k) for k in range(n_images)]
    floor, means = 0.0, np.full(n_stars, np.nan)
    for current in range(rounds):
        for position, k in enumerate(linked):
            if position and current == 0:
                means = _means(image, star, magnitude + offsets[image], error, linked[:position], n_stars)
            elif current == 0:
                continue
            rows = seen_on[k]
            difference = means[star[rows]] - magnitude[rows]
            good = np.isfinite(difference)
            if position and good.any():
                offsets[k] = _robust_mean(difference[good], np.hypot(error[rows][good], floor))
        means = _means(image, star, magnitude + offsets[image], np.hypot(error, floor), range(n_images), n_stars)
        residual = magnitude + offsets[image] - means[star]
        floor = _floor(residual, error, star, n_stars)
    return _finish(image, star, magnitude + offsets[image], error, floor, offsets, len(linked), n_stars)


def _linked_order(image: Indices, star: Indices, n_images: int) -> list[int]:
    """Return the images in an order in which each shares stars with one before it, best linked first."""
    stars_of = [set(star[image == k].tolist()) for k in range(n_images)]
    filled = [k for k in range(n_images) if stars_of[k]]
    if not filled:
        return []
    order, known = [filled[0]], set(stars_of[filled[0]])
    while True:
        left = [(len(stars_of[k] & known), -k) for k in filled if k not in order]
        best = max(left, default=(0, 0))
        if best[0] == 0:
            return order
        order.append(-best[1])
        known |= stars_of[-best[1]]


def _means(
    image: Indices, star: Indices, magnitude: Floats, error: Floats, images: list[int] | range, n_stars: int
) -> Floats:
    rows = np.flatnonzero(np.isin(image, list(images)))
    weight = 1.0 / error[rows] ** 2
    total = np.bincount(star[rows], weights=weight, minlength=n_stars)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(star[rows], weights=weight * magnitude[rows], minlength=n_stars) / total


def _robust_mean(values: Floats, error: Floats) -> float:
    middle = float(np.median(values))
    for _ in range(5):
        pull = (values - middle) / error
        weight = 1.0 / (1.0 + (pull / 2.0) ** 2) / error**2
        middle = float((weight * values).sum() / weight.sum())
    return middle


def _floor(residual: Floats, error: Floats, star: Indices, n_stars: int) -> float:
    """Return the scatter beyond the errors, from stars that were seen more than once."""
    count = np.bincount(star, minlength=n_stars)[star]
    many = count > 1
    if many.sum() < 10:
        return 0.0
    squares = residual[many] ** 2 * count[many] / (count[many] - 1.0)
    return float(np.sqrt(max(np.median(squares - 0.455 * error[many] ** 2) / 0.455, 0.0)))


def _finish(
    image: Indices, star: Indices, magnitude: Floats, error: Floats, floor: float, offsets: Floats, n_linked: int,
    n_stars: int,
) -> Overlaps:  # fmt: skip
    total = np.hypot(error, floor)
    weight = np.bincount(star, weights=1.0 / total**2, minlength=n_stars)
    means = _means(image, star, magnitude, total, range(offsets.size), n_stars)
    count = np.bincount(star, minlength=n_stars)
    chi2 = np.bincount(star, weights=((magnitude - means[star]) / error) ** 2, minlength=n_stars)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Overlaps(
            offsets, means, 1.0 / np.sqrt(weight), np.where(count > 1, chi2 / (count - 1.0), np.nan), n_linked
        )
