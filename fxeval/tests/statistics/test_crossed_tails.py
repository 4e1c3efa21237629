"""p-values of rates of comparisons, where they are too small to be told from 0."""

import numpy as np

from fxeval.statistics.crossed import crossed_rate_tails


def test_a_rate_far_from_the_line_has_the_smallest_p_value_that_can_be_told():
    """Nearly all of ten thousand comparisons of a thousand people hit, far above the line."""
    first = np.repeat(np.arange(1000), 10)
    second = (first + 1 + np.tile(np.arange(10), 1000)) % 1000
    values = np.ones(len(first))
    values[::500] = 0.0
    above, below = crossed_rate_tails(values, first, second, 0.1)
    assert 0.0 < above < 1e-15
    assert below == 1.0
