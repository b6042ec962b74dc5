"""How far a figure would move with other speakers."""

from collections.abc import Mapping, Sequence

import numpy as np

_DRAWS = 2000
_LEVEL = 0.95

Counts = Sequence[Sequence[int]]
"""Confusion: truth by row, answer by column."""


def interval(
    seeds: Sequence[Mapping[str, Counts]],
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Bootstrap over speakers of UAR and WA, each the mean over seeds.

    Args:
        seeds: for every seed the confusion of each speaker; the same speakers.

    Returns:
        Lower and upper limit of UAR, then of WA; None with fewer than two speakers.
    """
    names = sorted(seeds[0])
    if len(names) < 2 or any(sorted(seed) != names for seed in seeds):
        return None
    counts = np.array([[seed[name] for name in names] for seed in seeds], np.float64)
    draws = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), _DRAWS
    )
    # seed, draw, truth, answer
    drawn = np.einsum("ds,nsij->ndij", draws, counts)
    hits, clips = np.einsum("ndii->ndi", drawn), drawn.sum(3)
    recalls = np.divide(hits, clips, out=np.full_like(hits, np.nan), where=clips > 0)
    uar = np.nanmean(recalls, axis=2).mean(0)
    wa = (hits.sum(2) / clips.sum(2)).mean(0)
    tails = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    low, high = np.quantile(uar, tails)
    below, above = np.quantile(wa, tails)
    return (float(low), float(high)), (float(below), float(above))
