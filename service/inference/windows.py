"""Long audio as overlapping windows."""


def windows(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Cut a clip into windows that cover all of it.

    Args:
        num_samples: length of the clip.
        window: length of a window, in samples.
        hop: from the start of one window to the start of the next, in samples; 1 to ``window``.

    Returns:
        ``(start, end)`` of each window in samples, in order of start. All have the full length:
        the last is moved back to end where the clip ends. A clip no longer than a window is one.

    Examples:
        >>> windows(10, window=4, hop=2)
        [(0, 4), (2, 6), (4, 8), (6, 10)]
        >>> windows(9, window=4, hop=4)
        [(0, 4), (4, 8), (5, 9)]
        >>> windows(3, window=4, hop=4)
        [(0, 3)]
    """
    assert 0 < hop <= window, f"hop {hop} is not in 1..{window}"
    if num_samples <= window:
        return [(0, num_samples)]
    starts = list(range(0, num_samples - window + 1, hop))
    if starts[-1] + window < num_samples:
        starts.append(num_samples - window)
    return [(start, start + window) for start in starts]
