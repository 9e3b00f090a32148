"""`clip-jax data`: indexes and inspects data before a run waits on it."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.errors import UserError
from clip_jax.schema import nearest

TASKS = ("index", "inspect")
SHOWN = 3  # bad samples of each cause
PIPELINE_SECONDS = 5


def run(arguments: Sequence[str]) -> None:
    """Runs `data index` or `data inspect`."""
    if arguments and arguments[0] in TASKS:
        {"index": _index, "inspect": _inspect}[arguments[0]](arguments[1:])
        return
    parser = Parser(
        "data",
        "index SPEC: note where the samples of tars and TFRecords lie, once, so that runs start at once.\n"
        "inspect SPEC: what data holds, what is bad, what captions lose, how fast it comes, and a picture of it.\n"
        "`clip-jax data index --help` and `clip-jax data inspect --help` tell more.",
        "clip-jax data inspect 'tar:shards/{00000..00099}.tar' --sheet sheet.png",
    )
    parser.add_argument("task", metavar="TASK", help="index or inspect")
    options, _ = parser.parse_known_args(arguments)
    raise UserError(f"there is no data task '{options.task}'; {nearest(options.task, TASKS)}")


def _index(arguments: Sequence[str]) -> None:
    parser = Parser(
        "data index",
        "Note where the samples of tars or TFRecord files lie. An index is written beside each file, or into the\n"
        "cache folder where nothing can be written there, and is made anew when its file changes.",
        "clip-jax data index 'tar:gs://bucket/shards/{00000..00099}.tar'",
    )
    parser.add_argument("spec", metavar="SPEC", help="the data, as in tar:shards/*.tar")
    options = parser.parse_args(arguments)

    from clip_jax.data.index_report import index_report

    report = index_report(options.spec)
    print(f"{report.shards:,} files, {report.samples:,} samples, {report.bytes / 1e9:,.3g} GB")
    write_json(options.json, {"files": report.shards, "samples": report.samples, "bytes": report.bytes})


def _inspect(arguments: Sequence[str]) -> None:
    parser = Parser(
        "data inspect",
        "Read data as training does: counts, sizes, caption lengths in tokens and how many are cut, repeated images\n"
        "and captions, bad samples by cause, and how fast batches come. --sheet draws images and captions as the\n"
        "model sees them, after augmentation. With --json every bad sample is listed.",
        "clip-jax data inspect 'tar:shards/{00000..00099}.tar?captions=captions' --sheet sheet.png",
    )
    parser.add_argument("spec", metavar="SPEC", help="the data, as in tar:shards/*.tar, csv:pairs.tsv or folder:pets")
    parser.add_argument("--limit", type=int, metavar="N", help="look at some N samples only, in blocks at random")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw a contact sheet (.png, .jpg, .pdf, .svg)")
    parser.add_argument("--model", default="ViT-B-32", metavar="NAME", help="whose size and tokenizer (ViT-B-32)")
    parser.add_argument("--crop-scale", default="0.9,1.0", metavar="LOW,HIGH", help="as data.crop_scale (0.9,1.0)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    options = parser.parse_args(arguments)
    scale = _scale(options.crop_scale)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit}: it must be at least 1")

    from clip_jax.data.contact_sheet import FORMATS, draw_contact_sheet
    from clip_jax.data.inspection import inspect
    from clip_jax.data.order import Shuffle
    from clip_jax.data.pipeline import make_pipeline
    from clip_jax.data.reader import Augmentation
    from clip_jax.data.spec import open_table
    from clip_jax.inputs.tokenizer import tokenizer_for
    from clip_jax.presets import get_config
    from clip_jax.training.initial import tokenizer_files

    if options.sheet and options.sheet.suffix not in FORMATS:
        raise UserError(f"--sheet {options.sheet}: a picture ends in {', '.join(FORMATS)}")
    model = get_config(options.model)
    tokenizer = tokenizer_for(model.tokenizer, model.text, tokenizer_files(model, None))
    table = open_table(options.spec)
    found = inspect(table, tokenizer, options.limit, options.seed)
    print(f"{found.samples:,} samples in {found.parts:,} files", end="")
    print(f", of which {found.looked_at:,} were read in {found.seconds:.1f} s ({_speed(found)} samples/s)")
    print(f"\n{'':20}" + "".join(f"{name:>10}" for name in ("least", "5 %", "median", "95 %", "most")))
    for name, spread in found.spreads.items():
        if spread:
            print(f"  {name:18}" + "".join(f"{value:10.5g}" for value in spread.values()))
    print(f"\n  captions           {found.captions:,}; longer than {tokenizer.context_length} tokens {found.cut:.2%}")
    print(f"  seen before        images {found.repeated_images:.2%}, captions {found.repeated_captions:.2%}")
    print(f"  labelled           {found.labelled:,}, of {len(table.class_names)} classes")
    print(f"  bad                {len(found.bad):,} ({len(found.bad) / max(found.looked_at, 1):.2%})")
    for cause, count in found.causes.items():
        print(f"    {cause}: {count:,}")
        for sample in itertools.islice((one for one in found.bad if one.cause == cause), SHOWN):
            print(f"      {sample.key}: {sample.reason}")
    result = found.to_dict()
    write_json(options.json, result)  # now, as data that is bad enough ends what follows
    if found.captions:
        batch_size = 36
        pipeline = make_pipeline(
            [(table, 1.0)], tokenizer, model.vision.image_size, batch_size, options.seed, Shuffle(), Augmentation(scale)
        )
        batches = pipeline.batches(0, 10**6)
        first = next(batches)
        started, images = time.monotonic(), 0
        while time.monotonic() - started < PIPELINE_SECONDS:
            images += len(next(batches).pixels)
        result["pipeline_images_per_second"] = images / (time.monotonic() - started)
        print(
            f"\ntraining batches for {options.model} come at {result['pipeline_images_per_second']:,.0f} images/s here"
        )
        if options.sheet:
            captions = [tokenizer.decode(row) for row in first.tokens]
            title = f"{options.spec}, as {options.model} sees it in training"
            draw_contact_sheet(first.pixels, captions, options.sheet, title)
            print(f"contact sheet: {options.sheet}")
        write_json(options.json, result)


def _scale(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise UserError(f"--crop-scale {text}: two numbers, as in 0.9,1.0, would do") from error
    if not 0 < low <= high <= 1:
        raise UserError(f"--crop-scale {text}: it must be a rising range within 0 and 1")
    return low, high


def _speed(found) -> str:
    return f"{found.looked_at / max(found.seconds, 1e-9):,.0f}"
