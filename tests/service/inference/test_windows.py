import itertools

import numpy as np
import pytest

from nnpm.service.inference.segments import windows


@pytest.mark.parametrize("num_samples", [1, 9, 10, 11, 19, 20, 21, 57, 1_000])
@pytest.mark.parametrize(("window", "hop"), [(10, 10), (10, 5), (10, 3), (10, 1)])
def test_windows_cover_the_clip(num_samples: int, window: int, hop: int) -> None:
    cuts = windows(num_samples, window, hop)
    covered = np.zeros(num_samples, bool)
    for start, end in cuts:
        assert min(window, num_samples) <= end - start <= window + hop // 2
        covered[start:end] = True
    assert covered.all()
    assert cuts == sorted(set(cuts))
    assert cuts[-1][1] == num_samples
    assert all(b[0] - a[0] <= hop for a, b in itertools.pairwise(cuts))
