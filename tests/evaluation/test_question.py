"""What a dataset asks: classes by benchmark, by label and by order, templates from files, and what does not fit."""

import json

import pytest
from support.tables import ListTable
from support.tars import image, write_tar

from clip_jax.data.spec import open_table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import get_benchmark
from clip_jax.evaluation.question import ask, check_metric, read_classes, read_templates
from clip_jax.evaluation.zero_shot import NO_CLASS


def table(*class_names: str) -> ListTable:
    made = ListTable([])
    made.class_names = class_names
    return made


def test_a_tables_own_classes():
    question = ask(table("cat", "dog", "cat"))  # as ImageNet has two of the same name
    assert (question.names, question.class_of.tolist()) == (("cat", "dog", "cat"), [0, 1, 2])
    assert (question.templates, question.metric) == (("a photo of a {}.",), None)


def test_labels_to_choose_from():
    question = ask(table("cat", "dog"), labels=["owl", "dog", "cat"], templates=["the {}."])
    assert (question.names, question.class_of.tolist()) == (("owl", "dog", "cat"), [2, 1])
    assert question.templates == ("the {}.",)
    with pytest.raises(UserError, match="the labels lack 'cat'"):
        ask(table("cat", "dog"), labels=["dog"])


def test_names_in_the_order_of_the_labels():
    question = ask(table("n01", "n02"), class_names=[("tench",), ("goldfish", "Carassius auratus")])
    assert (question.names, question.class_of.tolist()) == (("tench", "goldfish"), [0, 1])
    assert ask(table(), class_names=[("tench",)]).names == ("tench",)  # labels without any names
    with pytest.raises(UserError, match="3 class names are given, but the data has 2 classes"):
        ask(table("a", "b"), class_names=[("a",), ("b",), ("c",)])


def test_a_benchmarks_classes_are_found_by_name():
    benchmark = get_benchmark("cifar10")
    names = [several[0] for several in benchmark.classes]
    question = ask(table(*reversed(names)), benchmark=benchmark)
    assert question.class_of.tolist() == list(range(9, -1, -1))
    assert (question.classes, question.templates) == (benchmark.classes, benchmark.templates)
    assert question.metric == "accuracy"
    with pytest.raises(UserError, match="cifar10"):
        ask(table("cat", "dog"), benchmark=benchmark)
    with pytest.raises(UserError, match=r"does not name its classes"):
        ask(table(), benchmark=benchmark)
    with pytest.raises(UserError, match="is for retrieval"):
        ask(table("a"), benchmark=get_benchmark("flickr30k"))
    with pytest.raises(UserError, match="give one of them"):
        ask(table(*names), benchmark=benchmark, labels=names)


def test_classes_that_a_benchmark_lacks():
    benchmark = get_benchmark("imagenet_r")
    wordnet = get_benchmark("imagenet").labels
    question = ask(table(*wordnet), benchmark=benchmark)  # tfds has all thousand names, of which 200 come
    assert (question.class_of != NO_CLASS).sum() == len(benchmark.classes) == 200
    assert question.class_of[benchmark.imagenet[7][0]] == 7


def test_templates_beside_the_data(tmp_path):
    write_tar(tmp_path / "test/0.tar", [("0.webp", image(0)), ("0.cls", b"0")])
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("an image of {c}\n")
    assert ask(open_table(f"tar:{tmp_path}/test")).templates == ("an image of {}",)
    assert ask(open_table(f"tar:{tmp_path}/test"), templates=["a {}"]).templates == ("a {}",)
    (tmp_path / "zeroshot_classification_templates.txt").write_text("an image\n")
    with pytest.raises(UserError, match=r"template 'an image' has no \{\}"):
        ask(open_table(f"tar:{tmp_path}/test"))


def test_files_of_templates_and_classes(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("\ufeffa {c}.\n\n  the {}.\n", encoding="utf-8")
    assert read_templates(str(path)) == ["a {}.", "the {}."]
    assert [len(read_templates(number)) for number in ("1", "7", "80")] == [1, 7, 80]
    path.write_text("a photo\n")
    with pytest.raises(UserError, match=r"has no \{\} to put the label in"):
        read_templates(str(path))
    with pytest.raises(UserError, match="there are no templates '8'; a file of one a line, or"):
        read_templates("8")
    path.write_text("tench\n\n goldfish \n")
    assert read_classes(path) == [("tench",), ("goldfish",)]
    path.write_text(json.dumps(["tench", ["goldfish", "Carassius auratus"]]))
    assert read_classes(path) == [("tench",), ("goldfish", "Carassius auratus")]
    for wrong in ('{"0": "tench"}', "[1, 2]", "[]"):
        path.write_text(wrong)
        with pytest.raises(UserError, match="is not a JSON list of class names"):
            read_classes(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="it is not UTF-8 text"):
        read_classes(path)


def test_metrics():
    assert check_metric("mean_per_class") == "mean_per_class"
    with pytest.raises(UserError, match="did you mean 'accuracy'"):
        check_metric("acuracy")
