from decimal import Decimal

import numpy as np
import pytest

from nnpm.service.predict.schemas import round_scores

RNG = np.random.default_rng(0)


def largest_remainder(scores: list[float], digits: int) -> list[Decimal]:
    """Independently, in decimal: give out units one by one, to who is furthest below."""
    unit = Decimal(1).scaleb(-digits)
    total = sum(map(Decimal, scores))
    exact = [Decimal(score) / total for score in scores]
    given = [one // unit * unit for one in exact]
    while sum(given) < 1:
        loss = [one - got for one, got in zip(exact, given, strict=True)]
        given[loss.index(max(loss))] += unit
    return given


@pytest.mark.parametrize("digits", [1, 2, 4, 6])
@pytest.mark.parametrize("concentration", [0.05, 1.0, 50.0])
def test_rounded_scores_sum_to_exactly_one(digits: int, concentration: float) -> None:
    for _ in range(50):
        scores = RNG.dirichlet([concentration] * 8).astype(np.float32)
        given = {f"e{index}": float(score) for index, score in enumerate(scores)}
        rounded = round_scores(given, digits)
        written = [Decimal(repr(score)) for score in rounded.values()]
        assert sum(written) == 1
        assert written == largest_remainder(list(given.values()), digits)
        assert all(abs(rounded[name] - given[name]) < 10**-digits for name in given)


def test_rounding_keeps_the_order_and_what_cannot_be_answered() -> None:
    scores = {"a": 0.0, "b": 0.49996, "c": 0.50004, "d": 0.0}
    assert round_scores(scores, 4) == {"a": 0.0, "b": 0.5, "c": 0.5, "d": 0.0}
    assert round_scores(scores, 0) == scores
    assert round_scores({"a": 0.0}, 4) == {"a": 0.0}
