"""The demo: a tiny CLIP from nothing to a report, on drawn scenes of which whole combinations are held out."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
import numpy as np

from clip_jax.data.scenes import TEMPLATES
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table, usable
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.metrics import top
from clip_jax.evaluation.pages.demo import DemoResults, write_report
from clip_jax.evaluation.probes.linear_probe import linear_probe
from clip_jax.evaluation.probes.records import labelled
from clip_jax.evaluation.zero_shot import classify_features
from clip_jax.training.config_file import check_config
from clip_jax.training.demo_story import EVERY_NAME, Images, measure_story
from clip_jax.training.loop import train
from clip_jax.training.metrics import read_metrics
from clip_jax.training.recipes import scenes
from clip_jax.whole_file import write_output

FIGURES = "demo.json"
SHOWN_TRAINING_SAMPLES = 12
SHOWN_SIMILARITIES = 8


@dataclass(frozen=True)
class DemoFigures:
    """Accuracies are shares; `held_out_top1` chooses among held-out combinations only, `chance` is its chance.

    `seconds` is the time of all finished demos in the workdir. `story` has the figures of the report's later sections.
    """

    held_out_top1: float
    all_combinations_top1: float
    chance: float
    linear_probe_top1: float
    seconds: float
    report: str
    story: dict[str, float] = field(default_factory=dict)

    def flat(self) -> dict[str, float | str]:
        """All figures by name, as demo.json has them."""
        figures = asdict(self)
        return figures | figures.pop("story")


def run_demo(workdir: Path) -> DemoFigures:
    """Draws, trains, evaluates and writes `workdir/report.html`; goes on where an earlier demo there was stopped."""
    spent = _seconds_spent(workdir)
    start = time.monotonic() - spent
    config = check_config(scenes())
    assert config.data.draw is not None
    clip = train(config, workdir)
    folder = workdir / "scenes"
    table, probe_table = open_table(f"tar:{folder}/held_out?captions=captions"), open_table(f"tar:{folder}/probe")

    features, probe = embed_table(clip, table), embed_table(clip, probe_table)
    embeddings, truth = features.embeddings, features.labels
    held_out = classify_features(clip, features, templates=TEMPLATES)
    everything = classify_features(clip, features, EVERY_NAME, TEMPLATES)
    examples, test = (labelled(part, table.class_names) for part in (probe, features))
    fitted = linear_probe(examples, None, test, top)
    story = measure_story(clip, features, probe, fitted.probe, config.data.draw.seed, Images())

    classifier = clip.class_embeddings(table.class_names, TEMPLATES)
    samples = usable(table.read(range(len(table))))
    shown = _one_of_each(truth, SHOWN_SIMILARITIES)
    captions = [samples[i].captions[-1] for i in shown]
    report = workdir / "report.html"
    seconds = time.monotonic() - start
    write_report(
        DemoResults(
            metrics=read_metrics(workdir),
            train_samples=_training_samples(folder),
            held_out=held_out,
            all_combinations=everything,
            held_out_samples=samples,
            probabilities=np.asarray(jax.nn.softmax(clip.logit_scale * embeddings @ classifier.T, axis=-1)),
            similarity=embeddings[shown] @ clip.encode_text(captions, normalize=True).T,
            similarity_samples=[samples[i] for i in shown],
            similarity_captions=captions,
            linear_probe_top1=fitted.figure,
            story=story,
            seconds=seconds,
            workdir=str(workdir),
        ),
        report,
    )
    figures = DemoFigures(
        held_out_top1=held_out.top(1),
        all_combinations_top1=everything.top(1),
        chance=held_out.chance,
        linear_probe_top1=fitted.figure,
        seconds=time.monotonic() - start,
        report=str(report),
        story=story.figures(),
    )
    write_output(workdir / FIGURES, json.dumps(figures.flat(), indent=2) + "\n")
    return figures


def _seconds_spent(workdir: Path) -> float:
    """What an earlier demo in `workdir` took: one that only evaluates again must not look quicker than it was."""
    try:
        return float(json.loads((workdir / FIGURES).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _training_samples(folder: Path):
    table: Table = open_table(f"tar:{folder}/train?captions=captions")
    return usable(table.read(range(min(SHOWN_TRAINING_SAMPLES, len(table)))))


def _one_of_each(truth: np.ndarray, count: int) -> list[int]:
    """The first sample of each of `count` classes spread evenly over all of them."""
    classes = np.unique(truth)
    chosen = classes[np.linspace(0, len(classes) - 1, min(count, len(classes))).astype(int)]
    return [int(np.argmax(truth == c)) for c in chosen]
