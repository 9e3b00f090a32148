"""What is refused of evaluations before the first step, with the key of the task that is at fault."""

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from support.tables import ListTable

from clip_jax.data.spec import open_table
from clip_jax.data.table import Sample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import get_benchmark
from clip_jax.schema import parse
from clip_jax.training.config import CheckpointConfig, TrainConfig
from clip_jax.training.evaluate_config import EvaluateConfig, RetrievalTask, RobustnessTask, ZeroShotTask
from clip_jax.training.evaluations import check_best, check_tasks

SEEN, PROBE, TRAIN = "scenes:held_out?images=48", "scenes:probe?images=96", "scenes:train?images=12"
PETS = ("cat", "dog")


def parsed(**evaluate: Any) -> EvaluateConfig:
    """As a config file says it."""
    return parse(TrainConfig, {"data": {"source": TRAIN}, "evaluate": evaluate}, "config").evaluate


def pets(*labels: int | tuple[int, ...] | None, names: tuple[str, ...] = PETS) -> ListTable:
    """Images of one label, or of several."""
    table = ListTable(
        [
            Sample(str(number), b"", (), labels=one) if isinstance(one, tuple) else Sample(str(number), b"", (), one)
            for number, one in enumerate(labels)
        ]
    )
    table.class_names = names
    return table


TABLES: dict[str, Table] = {
    "pets": pets(0, 1),
    "several": pets((0,), (0, 1)),
    "unlabelled": pets(None, None),
    "cats": pets(0, 0, names=("cat",)),
    "many": pets(0, 1, names=("cat", "dog", "owl")),
    "imagenet": pets(*range(20), names=tuple(names[0] for names in get_benchmark("imagenet").classes)),
    "imagenet-r": pets(0, names=tuple(names[0] for names in get_benchmark("imagenet_r").classes)),
    SEEN: open_table(SEEN),
    TRAIN: open_table(TRAIN),
}


@pytest.mark.parametrize(
    ("kind", "task", "message"),
    [
        ("zero_shot", {"data": SEEN, "labels": ["star"]}, "the labels lack"),
        ("zero_shot", {"data": SEEN, "templates": ["a photo"]}, "has no {}"),
        ("zero_shot", {"data": SEEN, "dataset": "cifar11"}, "did you mean 'cifar10'"),
        ("zero_shot", {"data": "pets", "dataset": "flickr30k"}, "is for retrieval, not for classification"),
        ("zero_shot", {"data": TRAIN}, "this data has no labels"),
        ("zero_shot", {"data": "unlabelled"}, "the first images of unlabelled have no labels"),
        ("zero_shot", {"data": "pets", "class_names": ["cat"]}, "1 class names are given, but the data has 2 classes"),
        ("zero_shot", {"data": "pets", "class_names": ["cat", []]}, "number 2 is"),
        ("zero_shot", {"data": "pets", "class_names": PETS, "labels": PETS}, "give one of them"),
        ("zero_shot", {"data": SEEN, "metric": "roc_auc"}, "roc_auc is of two classes; the data has 24"),
        ("zero_shot", {"data": "pets", "metric": "map_11_point"}, "map_11_point does not fit images with one label"),
        ("zero_shot", {"data": "several", "metric": "accuracy"}, "accuracy does not fit images with several labels"),
        ("retrieval", {"data": "pets"}, "the first images of pets have no captions, which retrieval needs"),
        ("retrieval", {"data": TRAIN, "dataset": "cifar10"}, "cifar10 is for classification, not for retrieval"),
        ("probe", {"train": TRAIN, "data": SEEN}, "this data has no labels"),
        ("probe", {"train": "many", "data": "pets"}, "'owl' is in one of them only"),
        ("probe", {"train": "several", "data": "pets"}, "images of pets have one label and those of several several"),
        ("probe", {"train": "cats", "data": "cats"}, "a probe needs two classes at least"),
        ("linear_probe", {"train": "unlabelled", "data": "pets"}, "the first images of unlabelled have no labels"),
        ("linear_probe", {"train": "pets", "data": "pets", "validation": "many"}, "'owl' is in one of them only"),
        ("linear_probe", {"train": "pets", "data": "pets", "dataset": "voc2007"}, "'aeroplane' is missing"),
        ("linear_probe", {"train": "pets", "data": "pets", "metric": "map_11_point"}, "does not fit"),
        ("linear_probe", {"train": "many", "data": "many", "metric": "roc_auc"}, "the data has 3"),
        ("few_shot", {"train": "many", "data": "pets"}, "'owl' is in one of them only"),
        ("few_shot", {"train": "several", "data": "several"}, "these images have several labels"),
        ("few_shot", {"train": "many", "data": "many"}, "many has 2 images of 3 classes"),
        ("robustness", {"data": "pets", "shifts": {"x": "many"}}, "the shift x has the class 'owl'"),
        ("robustness", {"data": "pets", "shifts": {"imagenet_v2": "pets"}}, "must have each class of imagenet_v2"),
        ("robustness", {"data": "pets", "shifts": {"x": "several"}}, "these images have several labels"),
        ("robustness", {"data": "pets", "shifts": {"x": "unlabelled"}}, "unlabelled have no labels"),
        ("robustness", {"data": TRAIN, "shifts": {"x": "pets"}}, "this data has no labels"),
    ],
)
def test_what_does_not_fit_its_data_is_refused(kind, task, message):
    with pytest.raises(UserError) as caught:
        check_tasks(parsed(**{kind: {"x": task}}), TABLES)
    assert str(caught.value).startswith(f"config.evaluate.{kind}.x: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"epochs": 0.0}, "config.evaluate.epochs is 0.0; it must be above 0"),
        ({"probes": {}}, "config.evaluate has no key 'probes'; did you mean 'probe'?"),
        (
            {"zero_shot": {"x": {"data": "pets"}}, "robustness": {"x": {"data": "pets", "shifts": {"y": "pets"}}}},
            "config.evaluate has two tasks named 'x'; give each its own name",
        ),
        (
            {"zero_shot": {"x": {"data": "pets", "metric": "acuracy"}}},
            "config.evaluate.zero_shot.x.metric must be 'accuracy', 'mean_per_class', 'map_11_point', 'roc_auc', "
            "'mean_top1_top5' or none, not 'acuracy'",
        ),
        (
            {"linear_probe": {"x": {"train": "pets", "data": "pets", "seed": -1}}},
            "config.evaluate.linear_probe.x.seed is -1; it must be 0 or more",
        ),
        (
            {"few_shot": {"x": {"train": "pets", "data": "pets", "shots": [1, 0]}}},
            "config.evaluate.few_shot.x.shots is [1, 0]; it must be numbers of images, as in [1, 2, 4]",
        ),
        (
            {"few_shot": {"x": {"train": "pets", "data": "pets", "seeds": 0}}},
            "config.evaluate.few_shot.x.seeds is 0; it must be at least 1",
        ),
        (
            {"robustness": {"x": {"data": "pets", "shifts": {}}}},
            "config.evaluate.robustness.x.shifts is empty; it must name a shift's data",
        ),
        ({"robustness": {"x": {"data": "pets"}}}, "config.evaluate.robustness.x lacks the key 'shifts'"),
    ],
)
def test_what_no_data_fits_is_refused(evaluate, message):
    with pytest.raises(UserError) as caught:
        parsed(**evaluate)
    assert str(caught.value) == message


def test_a_table_without_captions(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat/1.png")
    config = EvaluateConfig(retrieval={"x": RetrievalTask(f"folder:{tmp_path}")})
    with pytest.raises(UserError, match=r"config.evaluate.retrieval.x: the first images of folder:.* have no captions"):
        check_tasks(config, {data: open_table(data) for data in config.data})


def test_the_best_of_several_labels():
    config = EvaluateConfig(zero_shot={"x": ZeroShotTask("several")})
    check_best(CheckpointConfig(best="eval/x/map_11_point"), config, TABLES)
    with pytest.raises(UserError, match=r"valid are eval/x/map_11_point, eval/x/mean_average_precision, eval/x/top1$"):
        check_best(CheckpointConfig(best="eval/x/mean_per_class"), config, TABLES)


def test_the_best_by_the_metric_of_a_benchmark():
    config = parsed(
        zero_shot={
            "two": {"data": "pets", "metric": "roc_auc"},
            "imagenet": {"data": "imagenet", "metric": "mean_per_class"},
        },
        linear_probe={"probe": {"train": "imagenet", "data": "imagenet", "dataset": "imagenet"}},
        robustness={
            "robust": {
                "data": "imagenet",
                "dataset": "imagenet",
                "shifts": {"imagenet_r": "imagenet-r", "x": "imagenet"},
            }
        },
    )
    for name in ("two/roc_auc", "imagenet/mean_per_class", "probe/accuracy", "robust/shift_imagenet_r"):
        check_best(CheckpointConfig(best=f"eval/{name}"), config, TABLES)


def test_a_shift_of_imagenet_needs_its_classes_by_their_place():
    """ImageNet-R has 200 classes under names of its own; only of the benchmark ImageNet is it known which these are."""
    task = RobustnessTask("pets", {"imagenet_r": "imagenet-r"})
    with pytest.raises(UserError, match=r"the shift imagenet_r has the class '.*', which the base lacks"):
        check_tasks(EvaluateConfig(robustness={"x": task}), TABLES)
    check_tasks(EvaluateConfig(robustness={"x": replace(task, data="imagenet", dataset="imagenet")}), TABLES)


def test_a_config_file_can_say_all_this():
    config = parsed(
        epochs=1,
        zero_shot={"z": {"data": SEEN, "class_names": ["cat", ["dog", "hound"]], "metric": "mean_per_class"}},
        retrieval={"r": {"data": TRAIN}},
        probe={"p": {"train": PROBE, "data": SEEN}},
        linear_probe={"l": {"train": PROBE, "data": SEEN, "validation": "folder:validation", "seed": 3}},
        few_shot={"f": {"train": PROBE, "data": SEEN, "shots": [1, 4], "seeds": 2}},
        robustness={"x": {"data": SEEN, "shifts": {"sketches": "folder:sketches"}}},
    )
    assert config.data == [SEEN, TRAIN, PROBE, "folder:validation", "folder:sketches"]
    assert config.zero_shot["z"].class_names == ("cat", ("dog", "hound"))
    assert config.few_shot["f"].shots == (1, 4)
    assert config.robustness["x"].shifts == {"sketches": "folder:sketches"}
