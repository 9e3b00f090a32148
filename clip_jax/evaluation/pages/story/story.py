"""The demo's account of what CLIP does well and badly, measured on one small model: a section a question."""

from dataclasses import dataclass

from clip_jax.evaluation.pages.story.grain import Grain, grain_section
from clip_jax.evaluation.pages.story.labels import Labels, labels_section
from clip_jax.evaluation.pages.story.styles import Styles, styles_section
from clip_jax.evaluation.pages.story.traits import Traits, traits_section
from clip_jax.evaluation.pages.story.wordings import Wordings, wordings_section


@dataclass(frozen=True)
class Story:
    """What was measured for each section."""

    labels: Labels
    wordings: Wordings
    grain: Grain
    traits: Traits
    styles: Styles

    def figures(self) -> dict[str, float]:
        """Every figure by its name in demo.json, as shares."""
        parts = (self.labels, self.wordings, self.grain, self.traits, self.styles)
        return {name: figure for part in parts for name, figure in part.figures().items()}


def story_sections(story: Story) -> str:
    """The sections as HTML."""
    return "\n".join(
        [
            labels_section(story.labels),
            wordings_section(story.wordings),
            grain_section(story.grain),
            traits_section(story.traits),
            styles_section(story.styles),
        ]
    )
