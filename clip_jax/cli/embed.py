"""`clip-jax embed`: the embeddings of all images or texts of some data, for search and for other programs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.cli.process_arguments import add_process_arguments
from clip_jax.errors import Interrupted
from clip_jax.search.description import SHARD

if TYPE_CHECKING:
    from clip_jax.search.embed import Outcome

SHOWN, LISTED = 3, 1000  # samples left out that are printed, and that --json has; a file beside the set has all


def run(arguments: Sequence[str]) -> None:
    """Embeds, or goes on, and prints what is in the set."""
    parser = Parser(
        "embed",
        "Embed all images of some data, or with --texts its captions, into a file or folder that clip-jax search and\n"
        "NumPy read. A row has length one unless --raw is given, so that a product of two is their cosine similarity.\n"
        "Beside FILE.npy are written FILE.npy.keys.jsonl (what each row is of, a line a row), FILE.npy.bad.jsonl\n"
        "(samples that were left out, and why) and FILE.npy.json (the model, the data, and how). Stopped at any\n"
        "moment, the same command goes on, and the result is the same.",
        "clip-jax embed tar:runs/demo/scenes/held_out --model runs/demo --out held_out.npy",
    )
    parser.add_argument("spec", metavar="SPEC", help="the data: a folder, tar:shards/*.tar, csv:pairs.tsv, ...")
    parser.add_argument("--model", required=True, help="a model folder, a training workdir or a pretrained name")
    parser.add_argument(
        "--out", required=True, metavar="PATH", help="FILE.npy, FILE.parquet, or a folder, which gets a .npy a shard"
    )
    parser.add_argument(
        "--texts", action="store_true", help="embed the captions; SPEC may be a file.txt, too, with a text a line"
    )
    parser.add_argument(
        "--format", choices=("npy", "parquet", "folder"), help="what PATH is, where its name does not tell"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of the rows in the file (default: float32)"
    )
    parser.add_argument("--raw", action="store_true", help="keep each embedding's length as the model gives it")
    parser.add_argument(
        "--compute", choices=("float32", "bfloat16"), default="float32", help="of the model's run (default: float32)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="encoded at once (default: 64 images, 256 texts)")
    parser.add_argument(
        "--shard", type=int, default=SHARD, metavar="N", help=f"samples that are kept together (default: {SHARD})"
    )
    add_process_arguments(
        parser, "Give all three to embed with several processes, which all have to see PATH; each embeds its share."
    )
    options = parser.parse_args(arguments)

    from clip_jax.clip import load
    from clip_jax.processes import is_first
    from clip_jax.search.embed import Options, describe, embed, open_source
    from clip_jax.search.embedding_set import read_bad
    from clip_jax.search.shards import progress
    from clip_jax.search.target import target_of
    from clip_jax.training.distributed import initialise, together

    target = target_of(options.out, options.format)
    initialise(options.coordinator, options.processes, options.process)
    with together():
        source, spec = open_source(options.spec, options.texts)
        clip = load(options.model, options.compute)
        wanted = Options(not options.raw, options.dtype, options.shard)
        description = describe(clip, options.model, source, spec, wanted)
        try:
            outcome = embed(clip, source, description, target, options.batch_size)
        except KeyboardInterrupt as error:
            done = progress(target.folder, description)
            raise Interrupted(f"interrupted; {done} are kept, and the same command goes on from there") from error
        if is_first():
            bad = read_bad(target.path, LISTED)
            _show(outcome, target.path, bad)
            now = {"out": str(target.path), "bad": bad, "embedded": outcome.samples, "seconds": outcome.seconds}
            write_json(options.json, asdict(outcome.description) | now)


def _show(outcome: "Outcome", place: Path, bad: list[dict[str, Any]]) -> None:
    from clip_jax.search.source import printable

    found = outcome.description
    speed = f"; {outcome.samples:,} samples in {outcome.seconds:,.1f} s" if outcome.samples else ", as before"
    print(f"{printable(str(place))}: {found.rows:,} x {found.width} {found.dtype}{speed}")
    if bad:
        causes = ", ".join(f"{cause}: {count:,}" for cause, count in found.left_out.items())
        print(f"left out: {sum(found.left_out.values()):,} of {found.samples:,} ({causes})")
        for one in bad[:SHOWN]:
            print(printable(f"  {one['key']}: {one['reason']}"))
