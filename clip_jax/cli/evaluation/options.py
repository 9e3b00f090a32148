"""Options that every task of `clip-jax evaluate` has."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import Parser
from clip_jax.cli.process_arguments import add_process_arguments
from clip_jax.errors import UserError


class TaskParser(Parser):
    """A task's parser, with the model, the batch size, the cache and the page among its options."""

    def __init__(self, task: str, description: str, example: str, several_models: bool = False) -> None:
        super().__init__(f"evaluate {task}", description, example)
        several = "; may be given several times" if several_models else ""
        self.add_argument(
            "--model",
            required=True,
            action="append" if several_models else "store",
            help=f"a model folder, a training workdir or a pretrained name{several}",
        )
        self.add_argument("--batch-size", type=int, default=64, help="images encoded at once (default: 64)")
        self.add_argument(
            "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation (default: float32)"
        )
        cache = self.add_mutually_exclusive_group()
        cache.add_argument(
            "--cache", type=Path, metavar="FOLDER", help="where features are kept (default: ~/.cache/clip_jax/features)"
        )
        cache.add_argument("--no-cache", action="store_true", help="keep no features, and take none from before")
        self.add_argument("--html", type=Path, metavar="FILE", help="also write a page with plots")
        add_process_arguments(self, "Give all three to evaluate with several processes; each embeds its share.")


def cache_folder(options: argparse.Namespace) -> Path | None:
    """Where features are kept; None where they are not."""
    from clip_jax.evaluation.feature_store import default_folder

    return None if options.no_cache else options.cache or default_folder()


def add_question_arguments(parser: argparse.ArgumentParser, metric: bool = True) -> None:
    """Adds what says which classes there are, in which words, and how answers are judged."""
    from clip_jax.cli.arguments import split_labels

    question = parser.add_argument_group("classes and prompts")
    question.add_argument(
        "--dataset", metavar="NAME", help="the benchmark that the data is: its classes, templates and metric"
    )
    question.add_argument(
        "--labels", type=split_labels, default=(), help="choose among these (default: the data's own classes)"
    )
    question.add_argument(
        "--class-names",
        type=Path,
        metavar="FILE",
        help="a name a line in the order of the labels, or JSON",
    )
    question.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="how a class name is put into words, with {} for it; may be given several times, to be ensembled",
    )
    question.add_argument(
        "--templates", metavar="FILE", help="a template a line, or 1, 7 or 80 for those numbers of ImageNet's"
    )
    if not metric:
        parser.set_defaults(metric=None)
        return
    question.add_argument("--metric", help="accuracy, mean_per_class, mean_top1_top5, roc_auc or map_11_point")


def add_few_shot_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how many examples of each class few-shot has, and how often they are drawn; `check_seeds` checks them."""
    parser.add_argument("--shots", type=_shots, default=(1, 2, 4, 8, 16), help="of each class (default: 1,2,4,8,16)")
    parser.add_argument("--seeds", type=int, default=5, help="how many draws of examples (default: 5)")


def add_baselines_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the models that effective robustness is held against."""
    parser.add_argument(
        "--baselines", type=Path, metavar="FILE", help="CSV of other models: name, base, shifts (shares)"
    )


def check_seeds(options: argparse.Namespace) -> None:
    """Raises UserError for seeds that draw nothing."""
    if getattr(options, "seed", 0) < 0:
        raise UserError(f"--seed is {options.seed}; it must be 0 or more")
    if getattr(options, "seeds", 1) < 1:
        raise UserError(f"--seeds is {options.seeds}; it must be at least 1")


def named_spec(text: str) -> tuple[str, str]:
    """A name and a data spec from NAME=SPEC. Raises UserError."""
    name, equals, data = text.partition("=")
    if not name or not equals or not data or "/" in name:
        raise UserError(f"{text} is not NAME=SPEC, as in sketches=folder:data/sketches")
    return name, data


def once(option: str, named: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Data specs by their names. Raises UserError for a name that is given twice."""
    names = [name for name, _ in named]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{option} is given twice for '{twice}'; give each its own name")
    return dict(named)


def _shots(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--shots {text} are not numbers of images with commas between, as in 1,2,4")
    return tuple(sorted({int(part) for part in parts}))
