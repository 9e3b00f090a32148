"""How far numbers are from a reference."""

import numpy as np


def relative_error(ours, theirs) -> float:
    """The largest difference, relative to the reference's largest value. Shapes must be equal."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
