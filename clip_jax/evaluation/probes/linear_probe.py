"""A linear probe: logistic regression on frozen features, its strength searched for on validation data.

Source: section 3.2 and appendix A.3 of the paper, which takes the features before the projection and scikit-learn's
L-BFGS. Its lambda is our strength, scikit-learn's 1 / C: the value of C in OpenAI's example, 0.316, lies on its grid.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from clip_jax.evaluation.metrics import Scores, Truth
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures, check_alike, joined, stratified_split
from clip_jax.evaluation.probes.logistic_regression import LogisticRegression, Probe, fit

GRID = tuple(10.0 ** (step / 8 - 6) for step in range(97))  # 96 steps, eight to each decade from 1e-6 to 1e6
COARSE_STEP = 16  # two decades
SEARCH_TOLERANCE = 1e-7  # answers are settled before weights are

Figure = Callable[[Scores, Truth], float]


@dataclass(frozen=True)
class Trial:
    """One strength of the search, and its figure on the validation data."""

    strength: float
    figure: float
    converged: bool


@dataclass(frozen=True)
class Search:
    """The trials in rising order of strength, and the best with its probe."""

    trials: tuple[Trial, ...]
    best: Trial
    probe: Probe


@dataclass(frozen=True)
class LinearProbeResult:
    """The figure and the scores [b, c] on the test data of a probe fitted to training and validation data.

    `fitted_to` and `chosen_on` are the numbers of images of that fit and of those that the search was judged on.
    """

    figure: float
    scores: Float32[np.ndarray, "b c"]
    probe: Probe
    search: Search
    fitted_to: int
    chosen_on: int

    @property
    def strength(self) -> float:
        """The strength of the regularisation that the search chose."""
        return self.search.best.strength


def linear_probe(
    train: LabelledFeatures,
    validation: LabelledFeatures | None,
    test: LabelledFeatures,
    metric: Figure,
    seed: int = 0,
) -> LinearProbeResult:
    """Searches the strength on `validation`, fits again to it and `train` together, and evaluates on `test`.

    Without validation data a fifth of each class is drawn by `seed` from the training data. `metric` takes scores
    [b, c] and the truth to a figure, higher being better. Raises UserError where the splits do not go together, and as
    LogisticRegression does.
    """
    everything = train if validation is None else joined(train, validation)
    check_alike(train, test)
    if validation is None:
        train, validation = stratified_split(train, seed)
    search = search_strength(train, validation, metric)
    probe = fit(everything, search.best.strength, start=search.probe)
    scores = probe.scores(test.features)
    return LinearProbeResult(metric(scores, test.labels), scores, probe, search, len(everything), len(validation))


def search_strength(train: LabelledFeatures, validation: LabelledFeatures, metric: Figure) -> Search:
    """The best strength of GRID for a probe that is fitted to `train` and evaluated on `validation`.

    Each fit starts from where the two next to it point. The weakest may end before their minimum, as their trials tell;
    of the best a warning tells. Raises UserError as `check_alike` and LogisticRegression do.
    """
    check_alike(train, validation)
    regression = LogisticRegression(train)
    probes: dict[int, Probe] = {}

    def figure_at(place: int) -> float:
        probes[place] = regression.fit(GRID[place], _start(probes, place), SEARCH_TOLERANCE)
        return metric(probes[place].scores(validation.features), validation.labels)

    figures = search_grid(figure_at)
    trials = {place: Trial(GRID[place], figures[place], probes[place].converged) for place in sorted(figures)}
    best = best_place(figures)
    if not trials[best].converged:
        warnings.warn(
            f"the fit with the best strength, {GRID[best]:g}, ended after {probes[best].iterations} iterations before "
            "its minimum; features of similar sizes would help",
            stacklevel=2,
        )
    return Search(tuple(trials.values()), trials[best], probes[best])


def search_grid(figure_at: Callable[[int], float]) -> dict[int, float]:
    """The figures at the places of GRID that the paper's search tries, in that order.

    It tries every second decade, here from strong to weak, and then halves the steps around the best of all so far
    until they are the grid's own.
    """
    figures = {place: figure_at(place) for place in range(len(GRID) - 1, -1, -COARSE_STEP)}
    step = COARSE_STEP // 2
    while step:
        peak = best_place(figures)
        for place in (peak + step, peak - step):
            if 0 <= place < len(GRID):
                figures[place] = figure_at(place)
        step //= 2
    return figures


def best_place(figures: dict[int, float]) -> int:
    """The place of the highest figure; of equal ones the strongest, which is the simplest probe."""
    return max(figures, key=lambda place: (figures[place], place))


def _start(probes: dict[int, Probe], place: int) -> Probe | None:
    """Where the line through the two nearest fits, over the strength's logarithm, is at `place`."""
    near = sorted(probes, key=lambda other: abs(other - place))[:2]
    if len(near) < 2:
        return probes[near[0]] if near else None
    one, other = (probes[at] for at in near)
    along = np.float32((place - near[0]) / (near[1] - near[0]))
    return Probe(one.kernel + along * (other.kernel - one.kernel), one.bias + along * (other.bias - one.bias), 0, False)
