"""What the pages of the project hold: fenced blocks with what they need, and tables."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = tuple(sorted((ROOT / "experiments" / "guides").glob("*.md")))
CLOUD = ROOT / "experiments" / "tpu" / "README.md"
_BLOCK = re.compile(
    r"^(?:<!-- needs: (?P<needs>[^>]*) -->\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line it begins in; `needs` is what the comment before it says, or empty."""

    page: Path
    line: int
    language: str
    text: str
    needs: str

    @property
    def name(self) -> str:
        """Where it stands, as experiments/guides/data.md:12."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of those languages, in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        found.append(Block(page, line, match["language"], match["text"], match["needs"] or ""))
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def table(page: Path, *header: str) -> list[tuple[str, ...]]:
    """The rows of every table with that header, a cell a string. Raises ValueError where the page has no such table."""
    rows, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = _cells(line)
        if cells == header:
            inside = True
        elif not cells:
            inside = False
        elif inside and not set(line) <= set("|-: "):
            rows.append(cells)
    if not rows:
        raise ValueError(f"{page} has no table {header}")
    return rows


def code(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])
