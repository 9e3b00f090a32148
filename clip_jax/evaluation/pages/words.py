"""How a page of results names tasks, groups of datasets and metrics, and how it writes figures."""

from collections.abc import Mapping, Sequence
from html import escape

TASKS = {
    "zero-shot": "Zero-shot",
    "retrieval": "Retrieval",
    "linear-probe": "Linear probe",
    "few-shot": "Few-shot probe",
    "robustness": "Robustness",
}
GROUPS = {
    "paper": "the paper's datasets",
    "shifts": "shifts of ImageNet",
    "limits": "known limits",
    "other": "other data",
}
METRICS = {
    "accuracy": "accuracy",
    "mean_per_class": "mean per class",
    "map_11_point": "11-point mAP",
    "mean_average_precision": "mean average precision",
    "roc_auc": "ROC AUC",
    "mean_top1_top5": "mean of top-1 and top-5",
    "top1": "top-1",
    "top5": "top-5",
    "mean_of_shifts": "mean over the shifts",
    "base_on_the_same_classes": "base, on the shifts' classes",
}
SIGNED = ("effective_robustness",)  # differences, in points of percent
WHOLE = ("median_rank",)  # no shares
ABSENT = "\N{EN DASH}"


def metric_name(metric: str) -> str:
    """A metric in words."""
    return METRICS.get(metric, metric.replace("_at_", "@").replace("_", " "))


def axis_name(metrics: Sequence[str]) -> str:
    """What an axis has on it that several datasets share."""
    return metric_name(metrics[0]) if len(set(metrics)) == 1 else "main figure of each"


def shown(figure: float | None, metric: str = "accuracy") -> str:
    """A figure as a table has it: percent without its sign."""
    if figure is None or figure != figure:
        return ABSENT
    if metric.endswith(SIGNED):
        return points(figure)
    return f"{figure:,.1f}" if metric.endswith(WHOLE) else f"{100 * figure:.1f}"


def points(difference: float) -> str:
    """A difference in points of percent, with its sign."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "±0.0"


def between(interval: Sequence[float] | None) -> str:
    """The ends of an interval, or nothing."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""


def counted(number: int, thing: str) -> str:
    """'1 image', '1,200 images'."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def joined(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def breakable(model: str) -> str:
    """A model's name as HTML that may go on in the next line after each folder."""
    return escape(model).replace("/", "/<wbr>")


def by_model(told: Mapping[str, str]) -> str:
    """What is told of each model after its name, or where there is one, without."""
    return "; ".join(told.values() if len(told) == 1 else [f"{model}: {one}" for model, one in told.items()])


def shortened(name: str, longest: int) -> str:
    """A name for a plot: its end where it is too long, as the end of a path tells most, and no control characters."""
    plain = "".join(letter if letter.isprintable() else " " for letter in name)
    return plain if len(plain) <= longest else "…" + plain[1 - longest :]
