"""`clip-jax search`: what in a set of embeddings is nearest to texts and images."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from clip_jax.cli.arguments import Parser, write_json

if TYPE_CHECKING:
    from clip_jax.search.search import Hit


def run(arguments: Sequence[str]) -> None:
    """Prints the best rows for each query."""
    parser = Parser(
        "search",
        "Find what is nearest to texts and images in a set that clip-jax embed made, by cosine similarity.\n"
        "Every row is compared; nothing is approximate.",
        "clip-jax search held_out.npy --text 'a red star' --text 'a blue ring' --html sheet.html",
    )
    parser.add_argument("set", metavar="SET", help="what clip-jax embed wrote, or a .npy of your own")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="may be given several times")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="may be given several times")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="a text file with a text to search for a line")
    parser.add_argument("--model", help="the model for the queries (default: the one that made the set)")
    parser.add_argument("-k", type=int, default=10, help="how many to find, or all where there are fewer (default: 10)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a contact sheet with the pictures")
    options = parser.parse_args(arguments)

    from clip_jax.errors import UserError
    from clip_jax.search.embedding_set import open_set
    from clip_jax.search.search import model_of, read_queries, search
    from clip_jax.search.source import printable

    if options.k < 1:
        raise UserError(f"-k {options.k}: it must be at least 1")
    queries = read_queries(options.text, options.image, options.queries)
    found = open_set(options.set)
    clip = model_of(found, Path(options.set), options.model)
    answers = search(found, clip, queries, options.k)
    rows = sum(found.sizes)
    if options.html:
        from clip_jax.search.sheet import write_sheet
        from clip_jax.search.thumbnails import thumbnails

        pictures = thumbnails(found.description, (hit for hits in answers for hit in hits))
        of = f" {found.description.of} of {found.description.data}" if found.description else " rows"
        about = f"{options.set}: {rows:,}{of}. The number beside a rank is the cosine similarity."
        write_sheet(queries, answers, pictures, about, options.html)
    told = [
        {"text": query.text, "image": query.image, "hits": [asdict(hit) for hit in hits]}
        for query, hits in zip(queries, answers, strict=True)
    ]
    write_json(options.json, {"set": options.set, "rows": rows, "width": found.width, "queries": told})
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for query, hits in zip(queries, answers, strict=True):
        print(printable(f"{query.name}\n  rank   score  key"))
        for hit in hits:
            print(printable(_line(hit, columns)))
    if options.html:
        print(f"contact sheet: {options.html}")


def _line(hit: "Hit", columns: int | None) -> str:
    """A hit in a line, its caption cut at so many columns."""
    found = f"  {hit.rank:4}  {hit.score:6.4f}  {hit.key}"
    caption = " ".join((hit.caption or "").split())
    whole = f"{found}  {caption}" if caption else found
    return whole if columns is None else whole[: max(columns, len(found))]
