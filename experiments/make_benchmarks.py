"""Writes the prompts and published figures of the evaluation datasets into clip_jax/assets/benchmarks.

    python experiments/make_benchmarks.py [--check] --clip CLIP --clip-benchmark CLIP_benchmark \\
        --open-clip open_clip --testbed imagenet-testbed

Each option is a clone of the repository of that name, of which the commits below are read. The datasets are those of
datasets.tsv, which is kept by hand. `--check` writes nothing and fails unless the vendored files equal the ones it
would write.
"""

import argparse
import ast
import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[1] / "clip_jax" / "assets" / "benchmarks"
COMMITS = {
    "openai/CLIP": "d05afc436d78f1c48dc0dbf8e5980a9d471f35f6",
    "LAION-AI/CLIP_benchmark": "48de38c1689fa6d8b4dd53e3370c669c3bb18117",
    "mlfoundations/open_clip": "89fb801f1e6087880e951fc8354b8a2077b79c6d",
    "modestyachts/imagenet-testbed": "0170eec658d664289d9f61de8f90f967f49abca0",
}
PROMPTS, NOTEBOOK = "data/prompts.md", "notebooks/Prompt_Engineering_for_ImageNet.ipynb"
WORDNET_IDS = "clip_benchmark/datasets/builder.py"
OBJECTNET = "src/eval_settings/objectnet_metadata"
RESULTS, RETRIEVAL_RESULTS = "docs/openclip_results.csv", "docs/openclip_retrieval_results.csv"


def pairs(text: str) -> dict[str, str]:
    return dict(pair.split(": ") for pair in " ".join(text.split()).split(", "))


SECTIONS = pairs("""
    food101: Food101, cifar10: CIFAR10, cifar100: CIFAR100, birdsnap: Birdsnap, sun397: SUN397, cars: StanfordCars,
    aircraft: FGVCAircraft, voc2007: PascalVOC2007, dtd: DescribableTextures, pets: OxfordPets, caltech101: Caltech101,
    flowers102: Flowers102, mnist: MNIST, fer2013: FacialEmotionRecognition2013, stl10: STL10, eurosat: EuroSAT,
    resisc45: RESISC45, gtsrb: GTSRB, kitti_distance: KITTI, country211: Country211, pcam: PatchCamelyon,
    ucf101: UCF101, kinetics700: Kinetics700, clevr_counts: CLEVRCounts, hateful_memes: HatefulMemes,
    rendered_sst2: SST2
""")
"""Where the paper's datasets stand in OpenAI's list of prompts; ImageNet has a notebook of its own."""

OWN_NAMES = {
    "caltech101": pairs("""
        background: background_google, off-center face: faces, centered face: faces_easy, leopard: leopards,
        motorbike: motorbikes, airplane: airplanes, side of a car: car_side, body of a cougar cat: cougar_body,
        face of a cougar cat: cougar_face, head of a crocodile: crocodile_head, head of a flamingo: flamingo_head,
        snoopy (cartoon beagle): snoopy, yin and yang symbol: yin_yang
    """),
    "clevr_counts": pairs("3: three, 4: four, 5: five, 6: six, 7: seven, 8: eight, 9: nine, 10: ten"),
    "eurosat": pairs("""
        annual crop land: AnnualCrop, brushland or shrubland: HerbaceousVegetation, highway or road: Highway,
        industrial buildings or commercial buildings: Industrial, pasture land: Pasture, lake or sea: SeaLake,
        permanent crop land: PermanentCrop, residential buildings or homes or apartments: Residential
    """),
    "fer2013": pairs("disgusted: disgust, fearful: fear, surprised: surprise"),
    "flowers102": pairs("air plant: ball moss, pink and yellow dahlia: pink-yellow dahlia?"),
}
"""What the datasets themselves call classes that OpenAI calls otherwise; of CLEVR Counts, CLIP_benchmark's tars."""

COUNTRY_CODES = """
    AD AE AF AG AI AL AM AO AQ AR AT AU AW AX AZ BA BB BD BE BF BG BH BJ BM BN BO BQ BR BS BT BW BY BZ CA CD CF CH CI
    CK CL CM CN CO CR CU CV CW CY CZ DE DK DM DO DZ EC EE EG ES ET FI FJ FK FO FR GA GB GD GE GF GG GH GI GL GM GP GR
    GS GT GU GY HK HN HR HT HU ID IE IL IM IN IQ IR IS IT JE JM JO JP KE KG KH KN KP KR KW KY KZ LA LB LC LI LK LR LT
    LU LV LY MA MC MD ME MF MG MK ML MM MN MO MQ MR MT MU MV MW MX MY MZ NA NC NG NI NL NO NP NZ OM PA PE PF PG PH PK
    PL PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SS SV SX SY SZ TG TH TJ TL TM TN TO
    TR TT TW TZ UA UG US UY UZ VA VE VG VI VN VU WS XK YE ZA ZM ZW
"""
"""Country211's folders: codes of ISO 3166-1, in whose order OpenAI's names of the countries stand."""

MODELS = ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"]
TABLE_11 = """
food101 81.1 83.9 86.8 90.5 91.8 84.4 89.2 92.9 93.8
cifar10 75.6 81.0 79.2 82.2 86.8 91.3 91.6 96.2 95.7
cifar100 41.6 49.0 48.9 54.2 61.3 65.1 68.7 77.9 77.5
birdsnap 32.6 37.2 41.6 45.9 48.9 37.8 39.1 48.3 49.5
sun397 59.6 59.9 62.7 65.0 66.9 63.2 65.2 67.7 68.4
cars 55.8 62.3 67.9 72.3 76.0 59.4 65.6 77.3 78.8
aircraft 19.3 19.5 24.6 30.3 35.6 21.2 27.1 36.1 37.2
voc2007 82.1 82.4 83.0 82.9 83.8 83.1 83.9 84.1 84.3
dtd 41.7 43.9 49.3 52.8 53.4 44.5 46.0 55.3 55.7
pets 85.4 86.2 88.1 89.7 93.4 87.0 88.9 93.5 93.5
caltech101 82.1 85.1 86.0 87.6 90.6 87.9 89.3 92.6 92.8
flowers102 65.9 65.7 68.0 71.9 77.3 66.7 70.4 78.7 78.3
mnist 66.6 59.3 75.2 80.0 90.8 51.9 56.0 87.2 88.3
fer2013 42.2 45.6 51.1 56.0 61.0 47.3 52.7 57.5 57.7
stl10 94.3 96.7 96.4 97.8 98.3 97.2 98.2 99.3 99.4
eurosat 41.1 33.1 35.0 40.3 59.4 49.4 54.1 59.9 59.6
resisc45 54.2 58.5 59.2 64.4 69.7 60.3 65.5 71.6 71.7
gtsrb 35.2 38.3 35.7 39.6 47.9 32.2 43.3 50.3 52.3
kitti_distance 42.2 33.3 26.0 33.9 33.2 39.4 44.0 23.1 21.9
country211 16.1 16.9 20.2 24.0 29.6 17.8 23.3 32.7 34.9
pcam 57.6 55.2 57.5 62.5 65.0 58.4 48.1 58.8 63.0
ucf101 63.6 62.2 65.5 68.7 74.1 64.5 69.8 76.2 76.9
kinetics700 43.5 46.7 49.0 53.4 56.8 47.8 52.4 60.3 61.3
clevr_counts 20.3 28.1 17.0 17.6 27.5 24.8 23.4 24.3 24.8
hateful_memes 59.7 61.1 58.3 58.9 62.1 57.6 61.7 63.3 63.3
rendered_sst2 56.9 64.2 66.6 67.6 70.7 59.6 59.8 64.0 67.9
imagenet 59.6 62.2 65.8 70.5 73.6 63.2 68.6 75.3 76.2
"""
"""The paper's zero-shot figures of the models above."""
I_TO_T, T_TO_I = "image_to_text_recall_at_1", "text_to_image_recall_at_1"
BEST_MODEL = """
imagenet_v2 accuracy 70.1
imagenet_r accuracy 88.9
imagenet_a accuracy 77.2
imagenet_sketch accuracy 60.2
objectnet accuracy 72.3
flickr30k image_to_text_recall_at_1 88.0
flickr30k text_to_image_recall_at_1 68.7
coco image_to_text_recall_at_1 58.4
coco text_to_image_recall_at_1 37.8
"""
"""The paper's figures for shifts and retrieval, which are of its best model, the last of those above."""

OPEN_CLIP_COLUMNS = pairs("""
    food101: Food-101, cifar10: CIFAR-10, cifar100: CIFAR-100, sun397: SUN397, cars: Stanford Cars,
    aircraft: FGVC Aircraft, dtd: Describable Textures, pets: Oxford-IIIT Pet, caltech101: Caltech-101,
    flowers102: Oxford Flowers-102, mnist: MNIST, stl10: STL-10, eurosat: EuroSAT, resisc45: RESISC45, gtsrb: GTSRB,
    kitti_distance: KITTI Vehicle Distance, country211: Country211, pcam: PatchCamelyon, clevr_counts: CLEVR Counts,
    rendered_sst2: Rendered SST2, imagenet: ImageNet 1k, imagenet_v2: ImageNet v2, imagenet_r: ImageNet-R,
    imagenet_a: ImageNet-A, imagenet_sketch: ImageNet Sketch, objectnet: ObjectNet, flickr30k: Flickr, coco: MSCOCO
""")
"""Each is of the metric that datasets.tsv gives. Pascal VOC 2007 is not here: theirs is a task of another kind."""


@dataclass(frozen=True)
class Clone:
    repository: str
    path: Path

    @property
    def commit(self) -> str:
        return COMMITS[self.repository]

    def read(self, file: str) -> str:
        command = ["git", "-C", str(self.path), "show", f"{self.commit}:{file}"]
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout

    def cite(self, *files: str) -> str:
        return f"github.com/{self.repository}, commit {self.commit[:7]}, {' and '.join(files)}"


def assigned(code: str, name: str) -> Any:
    """The literal that Python code gives to a name."""
    for statement in ast.walk(ast.parse(code)):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return ast.literal_eval(statement.value)
    raise LookupError(name)


def paper_prompts(clip: Clone) -> Iterator[tuple[str, dict[str, Any]]]:
    sections = dict(re.findall(r"^## (\w+)\s+```bash\n(.*?)^```", clip.read(PROMPTS), re.DOTALL | re.MULTILINE))
    for name, section in SECTIONS.items():
        given = assigned(sections[section], "classes")
        classes = [[one] if isinstance(one, str) else one for one in given]
        templates = assigned(sections[section], "templates")
        record = {"source": clip.cite(PROMPTS), "classes": classes, "templates": templates}
        if name in OWN_NAMES:
            first_names = [" ".join(one[0].split()) for one in classes]
            assert OWN_NAMES[name].keys() <= set(first_names), name
            record["labels"] = [OWN_NAMES[name].get(first, first) for first in first_names]
        elif name == "sun397":  # TFDS has paths: /a/apartment_building/outdoor
            record["labels"] = [f"/{one[0]}/{one}" for one in given]
        elif name == "country211":
            record["labels"] = COUNTRY_CODES.split()
        assert len(record.get("labels", classes)) == len(classes), name
        yield name, record


def imagenet_prompts(clip: Clone, clip_benchmark: Clone, testbed: Clone) -> Iterator[tuple[str, dict[str, Any]]]:
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(clip.read(NOTEBOOK))["cells"]]
    lists = "\n".join(text for kind, text in cells if kind == "code" and text.startswith("imagenet_"))
    seven = next(text for kind, text in cells if kind == "markdown" and "7 templates" in text)
    builder = clip_benchmark.read(WORDNET_IDS)
    ids = assigned(builder, "all_imagenet_wordnet_ids")
    templates = assigned(lists, "imagenet_templates")
    source = f"{clip.cite(NOTEBOOK)}; labels from {clip_benchmark.cite(WORDNET_IDS)}"
    yield (
        "imagenet",
        {
            "source": source,
            "classes": [[name] for name in assigned(lists, "imagenet_classes")],
            "templates": templates,
            "template_sets": {"1": ["a photo of a {}."], "7": re.findall(r"^\d+\. (.*\S)", seven, re.MULTILINE)},
            "labels": ids,
        },
    )
    for name in ("imagenet_v2", "imagenet_sketch"):
        yield name, {"source": source, "prompts_of": "imagenet"}
    for name in ("imagenet_r", "imagenet_a"):
        wanted = set(assigned(builder, f"{name}_wnids"))
        yield (
            name,
            {"source": source, "prompts_of": "imagenet", "imagenet": [[i] for i in range(1000) if ids[i] in wanted]},
        )

    label_of, holds, names = (
        json.loads(testbed.read(f"{OBJECTNET}/{file}.json"))
        for file in ("folder_to_objectnet_label", "objectnet_to_imagenet_1k", "imagenet_to_labels")
    )
    index_of = {label: int(index) for index, label in names.items()}
    folders = sorted(folder for folder, label in label_of.items() if label in holds)
    yield (
        "objectnet",
        {
            "source": f"{testbed.cite(OBJECTNET)}; templates as ImageNet's",
            "classes": [[label_of[folder].lower()] for folder in folders],
            "templates": templates,
            "labels": folders,
            "imagenet": [[index_of[label] for label in holds[label_of[folder]].split("; ")] for folder in folders],
        },
    )


def retrieval_prompts() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("flickr30k", "coco"):
        yield name, {"source": "arXiv 2103.00020", "classes": [], "templates": ["a photo of {}"]}


def prompt_text(record: dict[str, Any]) -> str:
    """The record as JSON, an item of a list a line."""

    def value(item: Any, indent: str) -> str:
        if isinstance(item, list) and item:
            lines = ",\n".join(f"{indent}  {json.dumps(one, ensure_ascii=False)}" for one in item)
            return f"[\n{lines}\n{indent}]"
        if isinstance(item, dict):
            lines = ",\n".join(f"{indent}  {json.dumps(key)}: {value(one, indent + '  ')}" for key, one in item.items())
            return f"{{\n{lines}\n{indent}}}"
        return json.dumps(item, ensure_ascii=False)

    return value(record, "") + "\n"


def published_rows(datasets: list[dict[str, str]], open_clip: Clone) -> Iterator[tuple[str, ...]]:
    """Lines of published.tsv: dataset, model, metric, percent, source."""
    metrics = {row["name"]: row["metric"] for row in datasets}
    for line in TABLE_11.strip().splitlines():
        name, *figures = line.split()
        for model, figure in zip(MODELS, figures, strict=True):
            yield name, f"openai/{model}", metrics[name], figure, "paper"
    for line in BEST_MODEL.strip().splitlines():
        name, metric, figure = line.split()
        yield name, f"openai/{MODELS[-1]}", metric, figure, "paper"

    for row in openai_rows(open_clip, RESULTS):
        for name, column in OPEN_CLIP_COLUMNS.items():
            yield name, f"openai/{row['name']}", metrics[name], percent(row[column]), "open_clip"
    for row in openai_rows(open_clip, RETRIEVAL_RESULTS):
        for name in ("flickr30k", "coco"):
            for metric, what in ((I_TO_T, "text retr."), (T_TO_I, "image retr.")):
                figure = percent(row[f"{OPEN_CLIP_COLUMNS[name]} {what} R@1"])
                yield name, f"openai/{row['name']}", metric, figure, "open_clip"


def openai_rows(open_clip: Clone, file: str) -> Iterator[dict[str, str]]:
    """The rows of OpenAI's weights, of which those under the -quickgelu names are the same."""
    for row in csv.DictReader(open_clip.read(file).splitlines()):
        if row["pretrained"] == "openai" and not row["name"].endswith("-quickgelu"):
            yield row


def percent(share: str) -> str:
    return f"{100 * float(share):.2f}"


def files_to_write(clip: Clone, clip_benchmark: Clone, open_clip: Clone, testbed: Clone) -> dict[str, str]:
    with open(ASSETS / "datasets.tsv", encoding="utf-8", newline="") as file:
        datasets = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval=""))
    records = (
        dict(paper_prompts(clip)) | dict(imagenet_prompts(clip, clip_benchmark, testbed)) | dict(retrieval_prompts())
    )
    assert records.keys() == {row["name"] for row in datasets}
    order = list(row["name"] for row in datasets)
    rows = sorted(published_rows(datasets, open_clip), key=lambda row: (order.index(row[0]), row[4], row[2], row[1]))
    lines = [("dataset", "model", "metric", "percent", "source"), *rows]
    texts = {f"prompts/{name}.json": prompt_text(record) for name, record in records.items()}
    return texts | {"published.tsv": "".join("\t".join(line) + "\n" for line in lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the vendored files, write nothing")
    for option in ("--clip", "--clip-benchmark", "--open-clip", "--testbed"):
        parser.add_argument(option, type=Path, required=True, help="a clone")
    arguments = parser.parse_args()

    clones = (arguments.clip, arguments.clip_benchmark, arguments.open_clip, arguments.testbed)
    texts = files_to_write(*(Clone(name, path) for name, path in zip(COMMITS, clones, strict=True)))
    if arguments.check:
        paths = [*(ASSETS / "prompts").iterdir(), ASSETS / "published.tsv"]
        there = {path.relative_to(ASSETS).as_posix(): path.read_text(encoding="utf-8") for path in paths}
        if different := sorted(name for name in there.keys() | texts.keys() if there.get(name) != texts.get(name)):
            sys.exit(f"{', '.join(different)}: not as in the sources; run this script without --check")
    else:
        for name, text in texts.items():
            (ASSETS / name).write_text(text, encoding="utf-8")
    print(f"{len(texts) - 1} datasets' prompts, {texts['published.tsv'].count(chr(10)) - 1} published figures")


if __name__ == "__main__":
    main()
