"""Class names put into words: templates with {} for the name, and the prompts that they make."""

from collections import Counter
from collections.abc import Sequence

from clip_jax.errors import UserError

DEFAULT_TEMPLATE = "a photo of a {}."


def prompts_of(
    classes: Sequence[str | Sequence[str]], templates: str | Sequence[str] | None = None
) -> list[tuple[int, str]]:
    """Every name of every class in every template, each with the number of its class. Raises UserError."""
    names, templates = check_classes(classes), check_templates(templates)
    return [
        (number, template.replace("{}", name))
        for number, several in enumerate(names)
        for name in several
        for template in templates
    ]


def check_labels(labels: Sequence[str]) -> list[str]:
    """The labels as a list. Raises UserError where there are none, one is empty, or one stands twice."""
    if isinstance(labels, str):
        raise UserError(f"labels must be a list of strings, not the string '{labels}'")
    labels = list(labels)
    check_classes(labels)
    label, times = Counter(labels).most_common(1)[0]
    if times > 1:
        raise UserError(f"label '{label}' stands {times} times; give each label once")
    return labels


def check_classes(classes: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """The names of each class. Raises UserError where there are no classes, one has no name, or an empty one."""
    if not classes:
        raise UserError("there are no labels; give at least one")
    names = [[one] if isinstance(one, str) or not isinstance(one, Sequence) else list(one) for one in classes]
    for place, (one, several) in enumerate(zip(classes, names, strict=True), start=1):
        if not several or not all(isinstance(name, str) and name.strip() for name in several):
            raise UserError(f"every label must be a string that is not empty; number {place} is {one!r}")
    return names


def check_templates(templates: str | Sequence[str] | None) -> list[str]:
    """The templates as a list, the default where there are none given. Raises UserError for one without {}."""
    templates = [templates] if isinstance(templates, str) else list(templates or [DEFAULT_TEMPLATE])
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise UserError(f"template '{template}' has no {{}} to put the label in; '{DEFAULT_TEMPLATE}' has")
    return templates
