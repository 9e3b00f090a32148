"""The page that `clip-jax demo` writes: what was trained, how well it does, and where it fails, to look at.

One HTML file that needs nothing else: style, images and plots are inside it. assets/report.html is its frame.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from clip_jax.data.table import Sample
from clip_jax.evaluation.pages.figures import cell, curve, image_tag, svg_tag, table
from clip_jax.evaluation.pages.frame import footer, write_framed
from clip_jax.evaluation.pages.story.story import Story, story_sections
from clip_jax.evaluation.zero_shot import ZeroShotResult

HELD_OUT_TOP1 = "eval/held_out/top1"
MISTAKES_SHOWN = 16


@dataclass(frozen=True)
class DemoResults:
    """What the demo measured. The classes of `held_out` are the held-out combinations, those of `all_combinations` all.

    `metrics` are the lines of metrics.jsonl. `held_out_samples` and the softmax `probabilities` are in the order of
    `held_out.truth`. `similarity` holds cosines, and caption i belongs to sample i.
    """

    metrics: list[dict[str, float | int | str]]
    train_samples: list[Sample]
    held_out: ZeroShotResult
    all_combinations: ZeroShotResult
    held_out_samples: list[Sample]
    probabilities: Float32[np.ndarray, "b c"]
    similarity: Float32[np.ndarray, "images texts"]
    similarity_samples: list[Sample]
    similarity_captions: list[str]
    linear_probe_top1: float
    story: Story
    seconds: float
    workdir: str


def write_report(results: DemoResults, path: Path) -> None:
    """Writes the page to `path`, whole or not at all. Raises UserError where that fails."""
    parts = {
        "introduction": _introduction(results),
        "tiles": _tiles(results),
        "train_samples": "".join(map(_train_sample, results.train_samples)),
        "curves": _curves(results),
        "similarity": _similarity(results),
        "confusion": _confusion(results),
        "mistakes": _mistakes(results),
        "story": story_sections(results.story),
        "next": _next(results),
        "footer": footer(),
    }
    write_framed("report.html", parts, path)


def _introduction(results: DemoResults) -> str:
    names, combinations = results.held_out.class_names, len(results.all_combinations.class_names)
    colour, _, shape = escape(names[0]).rpartition(" ")
    return (
        "<p>A program drew simple scenes and captioned them. Two networks, one for images and one for text, were "
        "trained from nothing to tell which caption belongs to which image: that is contrastive training. "
        f"<b>{len(names)} of the {combinations} combinations of colour and shape were held out</b>: "
        f"“{colour} {shape}”, say, was never drawn and never named, though other {colour} things were, and so was "
        f"the {shape} in other colours. Can it name them all the same, given nothing but their names? "
        f"Of {_number(len(results.held_out.truth))} such images it names {_percent(results.held_out.top(1))} "
        f"correctly; guessing would reach {_percent(results.held_out.chance)}.</p>"
    )


def _tiles(results: DemoResults) -> str:
    held_out, everything = results.held_out, results.all_combinations
    _, speeds = _series(results, "images_per_second")
    steps = [int(line["step"]) for line in results.metrics if "step" in line]
    tiles = [
        (_percent(held_out.top(1)), "zero-shot, held out", f"top-1 among {len(held_out.class_names)} unseen names"),
        (_percent(everything.top(1)), "zero-shot, all names", f"top-1 among all {len(everything.class_names)}"),
        (_percent(results.linear_probe_top1), "linear probe", "top-1, trained on the embeddings"),
        (_percent(held_out.chance), "chance", f"guessing among {len(held_out.class_names)}"),
        (_duration(results.seconds), "time", "on this machine"),
    ]
    if steps:
        tiles.append((_number(max(steps)), "steps", "of training"))
    if speeds:
        tiles.append((_number(float(np.median(speeds))), "images/s", "in training, median"))
    return "".join(f"<li><strong>{a}</strong><span>{b}</span><small>{c}</small></li>" for a, b, c in tiles)


def _train_sample(sample: Sample) -> str:
    complete, terse = max(sample.captions, key=len), min(sample.captions, key=len)
    other = f"<small>also: {escape(terse)}</small>" if terse != complete else ""
    return f"<li>{image_tag(sample.image, complete)}{escape(complete)}{other}</li>"


def _curves(results: DemoResults) -> str:
    plots = []
    steps, values = _series(results, "loss")
    if steps:
        alt = f"Loss against step, from {values[0]:.2f} to {values[-1]:.2f}"
        plots.append(("Contrastive loss", curve(steps, values), alt))
    steps, values = _series(results, HELD_OUT_TOP1)
    if steps:
        alt = f"Zero-shot top-1 on held-out combinations, {_percent(values[0])} to {_percent(values[-1])}"
        plots.append(("Zero-shot top-1, held out", curve(steps, values, True, results.held_out.chance), alt))
    steps, values = _series(results, "logit_scale")
    if steps:
        alt = f"Logit scale against step, from {values[0]:.1f} to {values[-1]:.1f}"
        plots.append(("Logit scale (inverse temperature)", curve(steps, values), alt))
    if not plots:
        return ""
    figures = "".join(
        f"<figure><figcaption>{title}</figcaption>{svg_tag(svg, alt)}</figure>" for title, svg, alt in plots
    )
    return f'<section id="curves">\n<h2>How it learnt</h2>\n<div class="plots">{figures}</div>\n</section>'


def _similarity(results: DemoResults) -> str:
    cosines, captions = results.similarity, results.similarity_captions
    low, high = float(cosines.min()), float(cosines.max())
    strengths = (cosines - low) / max(high - low, 1e-6)
    right = int((cosines.argmax(axis=1) == np.arange(len(cosines))).sum())
    heads = [
        image_tag(sample.image, caption) for sample, caption in zip(results.similarity_samples, captions, strict=True)
    ]
    rows = [
        (
            escape(caption),
            [
                cell(float(strengths[i, t]), f"{cosines[i, t]:.2f}", i == t, f"image: {captions[i]} text: {caption}")
                for i in range(len(cosines))
            ],
        )
        for t, caption in enumerate(captions)
    ]
    return (
        "<p>Held-out images across, their captions down, and in each cell the cosine similarity of the two embeddings. "
        "The outlined pairs belong together and should be the darkest of their column; "
        f"{right} of {len(cosines)} are.</p>{table('similarity', 'Cosine similarities', heads, rows)}"
    )


def _confusion(results: DemoResults) -> str:
    names, truth, answers = results.held_out.class_names, results.held_out.truth, results.held_out.ranking[:, 0]
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (truth, answers), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    examples = {int(label): sample for label, sample in zip(truth[::-1], results.held_out_samples[::-1], strict=True)}
    heads = [f"<span>{escape(name)}</span>" for name in names] + ['<span class="correct">correct</span>']
    rows = []
    for c in sorted(examples):
        cells = [
            cell(share, f"{100 * share:.0f}" if share >= 0.005 else "", a == c, _answered(names[c], names[a], share))
            for a, share in enumerate(shares[c].tolist())
        ]
        bar = f'<span class="bar" style="width:{70 * shares[c, c]:.0f}px"></span>'
        cells.append(f'<td class="correct"><b>{_percent(shares[c, c])}</b>{bar}</td>')
        rows.append((image_tag(examples[c].image, "") + escape(names[c]), cells))
    return (
        "<p>Each row is a held-out combination as drawn, each column an answer; cells are percent of the row, and "
        "outlined ones are correct. The bars are each combination's accuracy, "
        f"{_percent(results.held_out.mean_per_class)} on average.</p>"
        f"{table('confusion', 'Confusion matrix', heads, rows)}"
    )


def _answered(truth: str, answer: str, share: float) -> str:
    return f"{truth}: {_percent(share)} answered {answer}"


def _mistakes(results: DemoResults) -> str:
    names, truth, answers = results.held_out.class_names, results.held_out.truth, results.held_out.ranking[:, 0]
    wrong = np.flatnonzero(answers != truth)
    if not len(wrong):
        return f"<p>Nothing: all {_number(len(truth))} held-out images are named correctly.</p>"
    confidence = results.probabilities[wrong, answers[wrong]]
    shown = wrong[np.argsort(-confidence, kind="stable")][:MISTAKES_SHOWN]
    items = [
        f"<li>{image_tag(results.held_out_samples[i].image, names[truth[i]])}<b>{escape(names[truth[i]])}</b>"
        f'<small>answered <span class="wrong">{escape(names[answers[i]])}</span>, '
        f"{_percent(float(results.probabilities[i, answers[i]]))} sure</small></li>"
        for i in shown
    ]
    pairs = [(names[truth[i]].split(), names[answers[i]].split()) for i in wrong]
    colour, shape = (sum(true[word] == answer[word] for true, answer in pairs) for word in (0, -1))
    return (
        f"<p>{_number(len(wrong))} of {_number(len(truth))} images, the most confident mistakes first. "
        f"In {_number(colour)} of them the colour is right, in {_number(shape)} the shape.</p>"
        f'<ul class="gallery">{"".join(items)}</ul>'
    )


def _next(results: DemoResults) -> str:
    workdir, labels = shlex.quote(results.workdir), shlex.quote(",".join(results.held_out.class_names[:3]))
    return (
        "<p>Draw a shape in a paint program, and ask this model about it:</p>"
        f"<pre><code>clip-jax classify IMAGE --labels {escape(labels)} --model {escape(workdir)}</code></pre>"
        "<p>Train it again, longer or otherwise; the file holds every setting:</p>"
        "<pre><code>clip-jax train --config=configs/scenes.py --workdir=DIR</code></pre>"
    )


def _series(results: DemoResults, name: str) -> tuple[list[float], list[float]]:
    """The steps and values of a metric, from the lines that have it."""
    lines: Sequence[dict] = [line for line in results.metrics if name in line and "step" in line]
    return [float(line["step"]) for line in lines], [float(line[name]) for line in lines]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _number(value: float | int) -> str:
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
