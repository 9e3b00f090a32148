"""The data of a run: what it draws first, the batches that it trains on, the tables that it evaluates with."""

from collections.abc import Mapping
from pathlib import Path

from etils import epath
from jax.sharding import Mesh

from clip_jax.config import ClipConfig
from clip_jax.data.draw_splits import draw_splits
from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import Pipeline, make_pipeline
from clip_jax.data.reader import Augmentation
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.inputs.tokenizer import tokenizer_for
from clip_jax.processes import is_first, wait_for_all
from clip_jax.training import workdir as workdirs
from clip_jax.training.config import TrainConfig
from clip_jax.training.distributed import batch_share
from clip_jax.training.evaluations import check_tasks


def draw_missing(config: TrainConfig, model: ClipConfig, workdir: Path | epath.Path) -> None:
    """Draws the scenes that the config asks for and that are not there yet."""
    draw = config.data.draw
    if draw is not None and is_first():
        counts = {"train": draw.train, "held_out": draw.held_out, "probe": draw.held_out}
        folder = Path(workdirs.locate(draw.folder, workdir))
        draw_splits(folder, counts, draw.seed, model.vision.image_size)  # pyright: ignore[reportArgumentType]
    wait_for_all("the scenes are drawn")


def training_pipeline(
    config: TrainConfig, model: ClipConfig, files: Mapping[str, bytes], mesh: Mesh, tables: Mapping[str, Table]
) -> Pipeline:
    """The batches of a run, of which this process reads its part; `tables` are the open sources by their SPEC."""
    data = config.data
    weights = [float(len(tables[one.source])) if one.weight is None else one.weight for one in data.sources]
    return make_pipeline(
        [(tables[one.source], weight) for one, weight in zip(data.sources, weights, strict=True)],
        tokenize=tokenizer_for(model.tokenizer, model.text, files),
        image_size=model.vision.image_size,
        batch_size=config.batch_size,
        seed=config.seed,
        shuffle=Shuffle(data.shuffle_block, data.shuffle_window, data.shuffle_lanes),
        augmentation=Augmentation(data.crop_scale, data.flip, data.colours, data.caption_weights),
        part=batch_share(mesh),
    )


def open_tasks(config: TrainConfig, workdir: Path | epath.Path) -> dict[str, Table]:
    """The data of the evaluations by their SPEC, opened and checked before the first step, not hours into the run."""
    tables = {data: open_table(workdirs.locate(data, workdir)) for data in config.evaluate.data}
    check_tasks(config.evaluate, tables)
    return tables
