"""A linear probe: logistic regression on frozen image embeddings.

Source: section 3.2 and appendix A.3 of the paper, which fits with L-BFGS.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Int

ITERATIONS = 200


def linear_probe(
    train_features: Float32[np.ndarray, "b k"],
    train_labels: Int[np.ndarray, " b"],
    test_features: Float32[np.ndarray, "m k"],
    test_labels: Int[np.ndarray, " m"],
    classes: int,
    strength: float = 1.0,
) -> float:
    """The top-1 on the test features of a logistic regression fitted to the train features.

    `strength` is scikit-learn's C: the summed cross entropy is weighted by it against half the squared weights.
    """
    weights, bias = _fit(jnp.asarray(train_features), jnp.asarray(train_labels), classes, strength)
    answers = np.argmax(test_features @ np.asarray(weights) + np.asarray(bias), axis=1)
    return float((answers == test_labels).mean())


def _fit(features: Array, labels: Array, classes: int, strength: float) -> tuple[Array, Array]:
    def loss(weights):
        kernel, bias = weights
        entropy = optax.softmax_cross_entropy_with_integer_labels(features @ kernel + bias[None], labels).sum()
        return (strength * entropy + jnp.square(kernel).sum() / 2) / len(features)

    solver = optax.lbfgs()
    start = (jnp.zeros((features.shape[1], classes)), jnp.zeros(classes))
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def iterate(_, carry):
        weights, state = carry
        value, gradient = value_and_gradient(weights, state=state)
        updates, state = solver.update(gradient, state, weights, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(weights, updates), state

    with jax.default_matmul_precision("highest"):
        weights, _ = jax.jit(lambda: jax.lax.fori_loop(0, ITERATIONS, iterate, (start, solver.init(start))))()
    return weights
