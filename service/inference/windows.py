"""Long audio as overlapping windows."""


def windows(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Cut a clip into windows that cover all of it.

    Args:
        num_samples: length of the clip.
        window: length of a window, in samples.
        hop: from the start of one window to the start of the next, in samples; 1 to ``window``.

    Returns:
        ``(start, end)`` of each window in samples, in order of start. A rest of at most half a hop
        joins the last window, so that a clip hardly longer than a window is still one; a longer
        rest gets a window of its own, which ends where the clip ends.

    Examples:
        >>> windows(10, window=4, hop=2)
        [(0, 4), (2, 6), (4, 8), (6, 10)]
        >>> windows(9, window=4, hop=4)
        [(0, 4), (4, 9)]
        >>> windows(11, window=4, hop=4)
        [(0, 4), (4, 8), (7, 11)]
        >>> windows(3, window=4, hop=4)
        [(0, 3)]
    """
    assert 0 < hop <= window, f"hop {hop} is not in 1..{window}"
    if num_samples <= window:
        return [(0, num_samples)]
    cuts = [(start, start + window) for start in range(0, num_samples - window + 1, hop)]
    rest = num_samples - cuts[-1][1]
    if 2 * rest > hop:
        cuts.append((num_samples - window, num_samples))
    elif rest:
        cuts[-1] = (cuts[-1][0], num_samples)
    return cuts
