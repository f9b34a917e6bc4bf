import numpy as np

from gueststar.algorithms.lightcurves.ensemble import solve_ensemble


def made(n_epochs: int = 40, n_stars: int = 30, seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    means, offsets = rng.uniform(12, 16, n_stars), rng.normal(0, 0.3, n_epochs)
    error = np.tile(0.004 * 10 ** (0.2 * (means - 12)), (n_epochs, 1))
    mag = means + offsets[:, None] + rng.normal(size=error.shape) * error
    return mag, error, offsets


def test_offsets_of_clouded_epochs_are_recovered_within_their_errors() -> None:
    mag, error, offsets = made()
    solved = solve_ensemble(mag, error)
    pull = (solved.offset - offsets - np.median(solved.offset - offsets)) / solved.offset_err
    assert 0.6 < np.std(pull) < 1.4


def test_a_variable_star_does_not_pull_the_epochs() -> None:
    mag, error, offsets = made()
    mag[:, 0] = 11.0 + offsets + 0.5 * np.sin(np.arange(40) / 5)
    error[:, 0] = 0.001
    solved = solve_ensemble(mag, error)
    assert not solved.is_comparison[0]
    residual = solved.offset - offsets
    assert np.std(residual - np.median(residual)) < 0.004


def test_missing_measurements_and_outliers_are_survived() -> None:
    mag, error, offsets = made()
    rng = np.random.default_rng(1)
    mag[rng.random(mag.shape) < 0.2] = np.nan
    mag[3, 4] += 5.0
    solved = solve_ensemble(mag, error)
    residual = solved.offset - offsets
    assert np.nanstd(residual - np.nanmedian(residual)) < 0.004


def test_an_epoch_without_stars_has_no_offset() -> None:
    mag, error, _ = made()
    mag[7] = np.nan
    assert np.isnan(solve_ensemble(mag, error).offset[7])


def test_scatter_beyond_the_errors_is_told() -> None:
    mag, error, _ = made(n_epochs=80)
    assert solve_ensemble(mag, error).excess < 0.002
    rng = np.random.default_rng(3)
    assert 0.008 < solve_ensemble(mag + rng.normal(0, 0.01, mag.shape), error).excess < 0.012
