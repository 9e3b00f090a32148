"""The principal axes of features: the coordinates in which linear probes are quickly fitted."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64


@dataclass(frozen=True)
class PrincipalAxes:
    """`directions` are orthonormal columns, with the `variances` of the features along them, in rising order."""

    mean: Float32[np.ndarray, " k"]
    directions: Float32[np.ndarray, "k k"]
    variances: Float64[np.ndarray, " k"]

    def centred(self, features: Float[np.ndarray, "b k"]) -> Float32[np.ndarray, "b k"]:
        """The features less the mean of those that the axes are of, in float32."""
        return features.astype(np.float32) - self.mean


def principal_axes(features: Float[np.ndarray, "b k"]) -> PrincipalAxes:
    """The axes of b features of width k: 2bk^2 operations on the device, and some 20k^3 on the host."""
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = jnp.asarray(features.astype(np.float32) - mean)
    with jax.default_matmul_precision("highest"):
        covariance = np.asarray(centred.T @ centred, np.float64) / len(features)
    variances, directions = np.linalg.eigh(covariance)
    return PrincipalAxes(mean, directions.astype(np.float32), np.maximum(variances, 0))
