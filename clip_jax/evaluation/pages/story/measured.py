"""An accuracy beside what guessing reaches: in words, in a plot, and in a section with what the paper found."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from clip_jax.evaluation.pages.figures import plot
from clip_jax.evaluation.pages.frame import plots, section
from clip_jax.evaluation.pages.looks import looks
from clip_jax.evaluation.pages.plots import dots
from clip_jax.evaluation.pages.rows import Row
from clip_jax.evaluation.pages.words import shown
from clip_jax.evaluation.record import Record
from clip_jax.evaluation.zero_shot import ZeroShotResult


@dataclass(frozen=True)
class Measured:
    """A share of right answers, where 95 % of it lie when images are resampled, and what guessing reaches."""

    figure: float
    interval: tuple[float, float]
    chance: float

    @staticmethod
    def of(result: ZeroShotResult) -> "Measured":
        """The top-1 accuracy of a result."""
        return Measured(result.top(1), result.interval("accuracy"), result.chance)

    @property
    def is_above_chance(self) -> bool:
        """Whether the whole interval lies above what guessing reaches."""
        return self.interval[0] > self.chance

    @property
    def is_below_chance(self) -> bool:
        """Whether the whole interval lies below what guessing reaches."""
        return self.interval[1] < self.chance

    @property
    def told(self) -> str:
        """The figure, and how it compares with guessing."""
        guessing = percent(self.chance)
        if self.is_above_chance:
            return f"{percent(self.figure)} (guessing: {guessing})"
        if self.is_below_chance:
            return f"{percent(self.figure)}, less than guessing ({guessing})"
        return f"{percent(self.figure)}, no better than guessing ({guessing})"


def percent(share: float) -> str:
    """'12.3%'."""
    return f"{shown(share)}%"


def chart(title: str, rows: Mapping[str, Mapping[str, Measured]]) -> str:
    """A figure with a row for each name: of each series what was measured, its interval, and chance."""
    lines = [
        Row("zero-shot", name, "accuracy", {series: _record(name, one) for series, one in several.items()})
        for name, several in rows.items()
    ]
    series = looks(list(dict.fromkeys(name for several in rows.values() for name in several)))
    told = [
        f"{name}: " + ", ".join(f"{way} {percent(one.figure)}" for way, one in several.items())
        for name, several in rows.items()
    ]
    chances = sorted({percent(one.chance) for several in rows.values() for one in several.values()})
    alt = f"{title}. {'; '.join(told)}. Chance: {', '.join(chances)}."
    return plot(
        escape(title), dots(lines, series), alt, "Bars are where 95% of the figures lie when images are resampled."
    )


def story_section(name: str, heading: str, question: str, findings: str, figures: list[str], paper: str) -> str:
    """A section: what is asked, plots, what they show, and the paper's counterpart; all but the name are HTML."""
    return section(
        name,
        heading,
        f"<p>{question}</p>",
        plots(figures),
        f'<p class="finding">{findings}</p>',
        f'<p class="paper"><b>In the paper.</b> {paper}</p>',
    )


def _record(name: str, one: Measured) -> Record:
    return Record(
        task="zero-shot",
        model="",
        dataset=name,
        data="",
        metric="accuracy",
        figures={"accuracy": one.figure},
        images=0,
        interval=one.interval,
        chance=one.chance,
    )
