"""What a run is made of, found and checked before its first update: model, mesh, data, and where it goes on."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import optax
from etils import epath
from jax.sharding import Mesh

from clip_jax.config import ClipConfig
from clip_jax.data.pipeline import Pipeline
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.processes import is_first, wait_for_all
from clip_jax.sharding import make_mesh
from clip_jax.training import workdir as workdirs
from clip_jax.training.config import TrainConfig
from clip_jax.training.data_list import check_data, data_list
from clip_jax.training.evaluations import check_best, evaluation_steps
from clip_jax.training.initial import initial_state, source_of, tokenizer_files
from clip_jax.training.model import check_mesh, training_model
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.resumption import Resumption
from clip_jax.training.run_data import draw_missing, open_tasks, training_pipeline
from clip_jax.training.state import TrainState, abstract_state
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.loading import tokenizer_files_of


@dataclass(frozen=True)
class Preparation:
    """`start`: updates already made; `tokenizer_files` by name; `tables`: the data of the evaluations by SPEC, which
    come after every `evaluate_every` steps.
    """

    start: int
    model: ClipConfig
    tokenizer_files: Mapping[str, bytes]
    mesh: Mesh
    optimizer: optax.GradientTransformation
    shardings: TrainState
    pipeline: Pipeline
    tables: Mapping[str, Table]
    evaluate_every: int


def prepare(config: TrainConfig, workdir: Path | epath.Path) -> tuple[Preparation, TrainState]:
    """Makes `workdir` the run's, and gives the state it goes on from. All processes call it together.

    Raises UserError for a config, data or workdir at fault.
    """
    workdirs.check(workdir, config)
    resumption = Resumption(workdir / CHECKPOINTS)
    start, found = resumption.describe()
    source = None if start else source_of(config)
    if start:  # nothing but the run itself is needed to go on with it
        model, files = ClipConfig.from_dict(found["model"]), tokenizer_files_of(workdir)
    else:
        model = training_model(config, None if source is None else source.config)
        files = tokenizer_files(model, source)
    mesh = make_mesh(config.mesh)
    check_mesh(config, model, mesh)
    optimizer = make_optimizer(config.optimizer, config.steps)
    abstract = abstract_state(model, optimizer, mesh, config.optimizer.ema is not None)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    draw_missing(config, model, workdir)
    sources = _open_sources(config, workdir)
    pipeline = training_pipeline(config, model, files, mesh, sources)
    tables = open_tasks(config, workdir)
    check_best(config.checkpoint, config.evaluate, tables)
    listed = data_list(sources)
    if is_first():  # only now, so that a mistyped SPEC can be mended
        workdirs.claim(workdir, config, files, None if start else listed)
    wait_for_all("the workdir is claimed")
    check_data(workdir, listed)  # of every process, which may have disks of their own
    if start:
        start, state = resumption.restore(abstract)
        if is_first():
            print(f"{workdir} is at step {start} of {config.steps}", file=sys.stderr)
    else:
        state = initial_state(config, model, optimizer, shardings, source)
    every = evaluation_steps(config, sum(map(len, sources.values())))
    return Preparation(start, model, files, mesh, optimizer, shardings, pipeline, tables, every), state


def _open_sources(config: TrainConfig, workdir: Path | epath.Path) -> dict[str, Table]:
    """The tables by their SPEC. The first process writes the indexes that tars lack, which the others find then."""

    def tables() -> dict[str, Table]:
        return {one.source: open_table(workdirs.locate(one.source, workdir)) for one in config.data.sources}

    first = tables() if is_first() else None
    wait_for_all("the first process has opened the data")
    return tables() if first is None else first
