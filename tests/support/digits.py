"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, some of which are 0 in all of them."""

import numpy as np
from sklearn.datasets import load_digits


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels from 0 to 16 as features [1797, 64] in float32 and the digits, in an order drawn once."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.asarray(features, np.float32)[order], np.asarray(labels)[order]
