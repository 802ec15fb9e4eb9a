"""
What the best of several candidates has truly gained: less than was found, because it was chosen for it.

Of ten candidates that change nothing, the best one of 50 tasks is found several points better. So each
gain is shrunk towards those of the others, by as much as chance explains of their differences: the
posterior mean in a hierarchical model whose candidates scatter like a Cauchy distribution around a
common centre (heavy tails, so that a candidate that is truly far better, or far worse, neither is
shrunk much nor hinders that others are), with the uniform shrinkage prior on its width (Daniels 1999)
and a flat one on its centre. A gain that is shrunk this way needs no correction for having been
chosen (Efron 2011). What all candidates have in common, the baseline's own chance, shrinks nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy  # its parts load when they are first used

from beam_ray.compare.statistics import Interval, Numbers

_CENTRES, _WIDTHS, _SCALES = 81, 30, 16
"""Points of the grids over which the model is averaged."""


@dataclass(frozen=True)
class Shrunk:
    """A candidate's gain after shrinkage."""

    gain: float
    interval: Interval


def shrunk(gains: Sequence[float], covariance: Numbers, confidence: float) -> list[Shrunk]:
    """
    The gains of two or more candidates, shrunk towards each other, in their order.

    Args:
        gains: as found, all in one unit.
        covariance: of their errors.
        confidence: of the intervals, in percent.
    """
    found, count = np.asarray(gains, dtype=float), len(gains)
    # a low quartile, as candidates that also share steps have more in common than the baseline
    shared = max(float(np.quantile(covariance[~np.eye(count, dtype=bool)], 0.25)), 0.0)
    variances = np.diag(covariance)
    shared = min(shared, 0.99 * float(variances.min()))
    own = np.maximum(variances - shared, 1e-12)
    alike = (covariance - shared) / np.sqrt(np.outer(own, own))
    np.fill_diagonal(alike, 1.0)
    # candidates that do nearly the same are one witness of how far candidates lie apart
    counted = 1 / (np.where(alike > 0.5, np.minimum(alike, 1.0), 0.0) ** 2).sum(axis=1)
    usual = float(1 / (1 / own).mean())
    reach = float(np.ptp(found)) + math.sqrt(usual)
    centres = np.linspace(found.min() - reach / 2, found.max() + reach / 2, _CENTRES)
    share = (np.arange(_WIDTHS) + 0.5) / _WIDTHS
    spread = (usual * (1 - share) / share)[:, None] * _cauchy()
    total = spread[:, :, None] + own  # width, scale, candidate
    away = found - centres[:, None]  # centre, candidate
    density = np.exp(-0.5 * away**2 / total[:, :, None]) / np.sqrt(total[:, :, None])  # width, scale, centre, candidate
    likelihood = density.mean(axis=1)
    logs = (counted * np.log(np.maximum(likelihood, 1e-300))).sum(axis=2)
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    part = density / np.maximum(density.sum(axis=1, keepdims=True), 1e-300)
    kept = (spread[:, :, None] / total)[:, :, None]
    means = centres[:, None] + kept * away
    squares = means**2 + kept * own
    gain, square = (np.einsum("wsck,wc->k", part * moment, weight) for moment in (means, squares))
    deviation = np.sqrt(np.maximum(square - gain**2, 0.0) + shared)
    quantile = float(scipy.special.ndtri(0.5 + confidence / 200))
    return [Shrunk(value, Interval(value - quantile * error, value + quantile * error)) for value, error in zip(gain.tolist(), deviation.tolist(), strict=True)]


def covariance_of(changes: Numbers, errors: Sequence[float]) -> Numbers:
    """
    The covariance of the candidates' mean changes.

    Args:
        changes: a row per task and a column per candidate; NaN where a candidate has none.
        errors: the standard error of each mean.
    """
    there = ~np.isnan(changes)
    counts = np.maximum(there.sum(axis=0), 1)
    centred = np.where(there, changes - np.where(there, changes, 0.0).sum(axis=0) / counts, 0.0) / counts
    products = centred.T @ centred
    deviations = np.sqrt(np.diag(products))
    scale = np.outer(deviations, deviations)
    alike = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    np.fill_diagonal(alike, 1.0)
    found: Numbers = alike * np.outer(errors, errors)
    return found


@cache
def _cauchy() -> Numbers:
    """Variances of normal distributions that make a Cauchy distribution together, all equally often."""
    places = (np.arange(_SCALES) + 0.5) / _SCALES
    return np.asarray(1 / (2 * scipy.special.gammaincinv(0.5, places)), dtype=np.float64)
