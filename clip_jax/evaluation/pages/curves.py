"""Plots of one figure against another: shots, strength, confidence, and accuracy without and with a shift."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clip_jax.evaluation.pages.figures import GREY, Axes, draw
from clip_jax.evaluation.pages.looks import WIDTH, Look, handle, legend, percent_axis
from clip_jax.evaluation.pages.words import shortened
from clip_jax.evaluation.robustness import Baseline, promised

HEIGHT = 3.3
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SHARES = (0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.98, 0.99)


def few_shot_curves(details: Mapping[str, dict[str, Any]], models: Mapping[str, Look], metric: str) -> str:
    """By model the mean figure against the shots with its standard errors, and zero-shot as a level line.

    Source: figure 6 of the paper.
    """

    def paint(axes: Axes) -> None:
        shots: list[int] = []
        for model, found in details.items():
            look = models[model]
            errors = [0 if error is None or math.isnan(error) else error for error in found["error"]]
            axes.errorbar(found["shots"], found["mean"], errors, fmt=f"-{look.mark}", color=look.colour, capsize=3)
            if found.get("zero_shot") is not None:
                axes.axhline(found["zero_shot"], color=look.colour, linestyle=(0, (4, 2)))
            shots = sorted({*shots, *found["shots"]})
        axes.set_xscale("log", base=2)
        axes.set_xticks(shots, [str(count) for count in shots])
        axes.minorticks_off()
        axes.set_xlabel("labelled images of each class")
        percent_axis(axes.yaxis, metric)
        handles = _handles(details, models)
        if any(found.get("zero_shot") is not None for found in details.values()):
            handles.append(handle("", GREY, "zero-shot", line=(0, (4, 2))))
        legend(axes, handles)

    return draw(paint, WIDTH, HEIGHT)


def search_curves(details: Mapping[str, dict[str, Any]], models: Mapping[str, Look], metric: str) -> str:
    """By model the validation figure against the strengths that were tried, the chosen one ringed."""

    def paint(axes: Axes) -> None:
        for model, found in details.items():
            look, trials = models[model], sorted(found["search"])
            axes.plot(*zip(*trials, strict=True), f"-{look.mark}", color=look.colour, markersize=4)
            chosen = min(trials, key=lambda trial: abs(math.log(trial[0] / found["strength"])))
            axes.plot(*chosen, "o", markersize=12, mfc="none", mec=look.colour, mew=1.6)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: "10" + f"{math.log10(value):.0f}".translate(SUPERSCRIPTS))
        axes.set_xlabel("λ, the strength of the regularisation")
        percent_axis(axes.yaxis, f"{metric}, validation")
        legend(axes, [*_handles(details, models), handle("o", GREY, "chosen", hollow=True)])

    return draw(paint, WIDTH, HEIGHT)


def reliability(bins: Mapping[str, Sequence[Sequence[float | int]]], models: Mapping[str, Look]) -> str:
    """By model the share of right answers against confidence; the area of a mark grows with its images."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 2)))
        for model, found in bins.items():
            look = models[model]
            confidence, right, counts = np.array(found, float).T
            axes.plot(confidence, right, color=look.colour, linewidth=1.4)
            areas = 8 + 150 * counts / counts.sum()
            axes.scatter(confidence, right, areas, look.colour, marker=look.mark, linewidths=0, alpha=0.85)
        axes.set_xlim(-0.02, 1.04)
        axes.set_ylim(-0.02, 1.04)
        percent_axis(axes.xaxis, "confidence in the answer")
        percent_axis(axes.yaxis, "right answers")
        legend(axes, [*_handles(bins, models), handle("", GREY, "calibrated", line=(0, (4, 2)))])

    return draw(paint, WIDTH, HEIGHT + 0.3)


def effective_robustness(
    found: Mapping[str, tuple[float, float]], baselines: Sequence[Baseline], models: Mapping[str, Look], base: str
) -> str:
    """By model (base, mean over shifts) on logit axes, beside baselines and their line, and the line of equal figures.

    Source: figure 13 of the paper.
    """

    def paint(axes: Axes) -> None:
        every = [*found.values(), *((one.base, one.shifts) for one in baselines)]
        low, high = (_logit(np.clip(bound, 0.005, 0.995)) for bound in (np.min(every), np.max(every)))
        margin = max(0.08 * (high - low), 0.15)
        ends = _expit(np.linspace(low - margin, high + margin, 50))
        axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)))
        if len({one.base for one in baselines}) > 1:
            axes.plot(ends, [promised(float(x), baselines) for x in ends], color=GREY, linewidth=1.2)
        for one in baselines:
            axes.plot(one.base, one.shifts, "o", markersize=4.5, color=GREY, alpha=0.7, mec="none")
        for model, point in found.items():
            look = models[model]
            if len({one.base for one in baselines}) > 1:
                axes.plot([point[0]] * 2, [promised(point[0], baselines), point[1]], color=look.colour, linewidth=1)
            axes.plot(*point, look.mark, markersize=8, color=look.colour, mec="white", mew=0.6)
        for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
            scale("function", functions=(_logit, _expit))
            ticks = [share for share in SHARES if ends[0] <= share <= ends[-1]]
            if len(ticks) < 3:  # so near to each other that every percent has room
                ticks = [percent / 100 for percent in range(1, 100) if ends[0] <= percent / 100 <= ends[-1]]
            axis.set_ticks(_spread(ticks), [f"{100 * share:.0f}%" for share in _spread(ticks)])
        axes.set_xlim(ends[0], ends[-1])
        axes.set_ylim(ends[0], ends[-1])
        axes.set_xlabel(f"accuracy on {shortened(base, 24)}, the shifts' classes")
        axes.set_ylabel("mean accuracy over the shifts")
        handles = [*_handles(found, models), handle("", GREY, "equal on both", line=(0, (1, 1.5)))]
        if baselines:
            handles.append(handle("o", GREY, "trained the usual way", line="-"))
        legend(axes, handles)

    return draw(paint, WIDTH, HEIGHT + 1)


def _spread(ticks: Sequence[float], apart: float = 0.05) -> list[float]:
    """Those of rising ticks that leave room for their labels on logit axes."""
    if len(ticks) < 2:
        return list(ticks)
    kept, room = [ticks[0]], apart * (_logit(ticks[-1]) - _logit(ticks[0]))
    for tick in ticks[1:]:
        if _logit(tick) - _logit(kept[-1]) >= room:
            kept.append(tick)
    return kept


def _handles(of: Mapping[str, Any], models: Mapping[str, Look]) -> list[Axes]:
    return [handle(models[model].mark, models[model].colour, models[model].name) for model in of]


def _logit(share: Any) -> Any:
    bounded = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(bounded / (1 - bounded))


def _expit(value: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(value)))
