"""Where the figures of a run go: its metrics file and TensorBoard, Weights & Biases, and the progress shown."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType

from etils import epath

from clip_jax.processes import is_first
from clip_jax.training.config import TrainConfig
from clip_jax.training.metrics import MetricsLog
from clip_jax.training.preemption import Stopped
from clip_jax.training.progress import Progress
from clip_jax.training.wandb_log import WandbLog


class RunLog:
    """Written and shown by the first process only; the others' do nothing. Ends with its `with` block."""

    def __init__(self, config: TrainConfig, workdir: Path | epath.Path, start: int) -> None:
        with ExitStack() as opened:
            first = is_first()
            self._metrics = opened.enter_context(closing(MetricsLog(workdir, start, config.log.tensorboard, first)))
            self._wandb = WandbLog(config, workdir, first)
            self._progress = opened.enter_context(closing(Progress(start, config.steps, first)))
            self._opened = opened.pop_all()

    def advance(self) -> None:
        """One more update has begun."""
        self._progress.step()

    def update(self, step: int, figures: Mapping[str, float], digest: str) -> None:
        """The figures of the update that was the `step`th, and of its batch."""
        self._metrics.write(step, {**figures, "batch_digest": digest})
        self._wandb.write(step, {**figures})
        self._progress.show(step, figures["loss"], figures["images_per_second"])

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """The figures eval/TASK/FIGURE after `step` updates; the first of each task is shown."""
        self._metrics.write(step, {**results})
        self._wandb.write(step, {**results})
        first: dict[str, str] = {}
        for name, value in results.items():
            _, task, figure = name.split("/", 2)
            first.setdefault(task, f"{task} {figure} {value:.1%}")
        self.say(f"step {step}: " + ", ".join(first.values()))

    def say(self, line: str) -> None:
        """Prints a line above the progress."""
        self._progress.say(line)

    def keep(self) -> None:
        """Sees to it that what was logged so far outlives the process; to be called before a checkpoint is saved."""
        self._metrics.keep()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            self._wandb.close(failed=error is not None and not isinstance(error, Stopped))
