"""Do the installed packages belong together: by what clip_jax and jax require of others in their own metadata."""

import platform
from collections.abc import Callable, Sequence
from importlib import metadata

from packaging.requirements import Requirement

import clip_jax
from clip_jax.tpu.doctor.examination import Finding

SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow", "libtpu")
OTHER_NAMES = {"tensorflow": "tensorflow-cpu"}


def version_of(name: str) -> str | None:
    """The installed version of a distribution, none where there is none."""
    for candidate in (name, OTHER_NAMES.get(name, name)):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def requires(name: str) -> list[str]:
    """What an installed distribution requires, its extras included; nothing of one that is not installed."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def check_versions(
    extras: Sequence[str],
    version_of: Callable[[str], str | None] = version_of,
    requires: Callable[[str], list[str]] = requires,
) -> Finding:
    """The packages of clip_jax and of its `extras`, train and tpu, must be there; all that are there must fit.

    libtpu is the version that jax asks for, and jaxlib that of jax.
    """
    versions = {"Python": platform.python_version(), "clip_jax": clip_jax.__version__}
    versions |= {name: version_of(name) or "none" for name in SHOWN}
    seen = ", ".join(f"{name} {version}" for name, version in versions.items())
    figures = {"versions": versions}
    wanted = requires("clip_jax")
    if not wanted:
        advice = "pip install -e '.[train]' in the repository, so that requirements can be compared"
        return Finding("warning", f"clip_jax itself is not installed; {seen}", advice, figures)
    lacking = _problems(wanted, ("", *extras), version_of, absent=True)
    unfit = _problems(wanted, ("", "train", "tpu"), version_of) + _problems(requires("jax"), ("", "tpu"), version_of)
    jax, jaxlib = version_of("jax"), version_of("jaxlib")
    if jax != jaxlib and not any(problem.startswith("jaxlib ") for problem in unfit):
        unfit.append(f"jaxlib {jaxlib} is there, of jax {jax}")
    problems = list(dict.fromkeys(lacking + unfit))
    if not problems:
        return Finding("ok", seen, figures=figures)
    advice = f"pip install -U '.[{','.join(extras) or 'train'}]' in the repository, in a fresh environment at best"
    needless = "tpu" not in extras and all(problem.startswith("libtpu ") for problem in problems)
    return Finding("warning" if needless else "failed", f"{'; '.join(problems)} ({seen})", advice, figures)


def _problems(
    requirements: Sequence[str], extras: Sequence[str], version_of: Callable[[str], str | None], absent: bool = False
) -> list[str]:
    """What is absent of these requirements, or else what is there in another version."""
    problems = []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        version = version_of(requirement.name)
        if version is None and absent:
            problems.append(f"{requirement.name} is not installed")
        elif version is not None and not absent and not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return problems
