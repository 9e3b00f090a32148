"""Reading the notebooks, and running them as a reader would: in a kernel of their own, from the top."""

import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NAMES = ("zero_shot", "interacting", "prompt_engineering", "converting", "training", "features_in_jax")
TIMEOUT = 1200  # seconds a cell, on a machine that is busy
# What stderr may show a reader: progress, and the lines of a run's log.
PROGRESS = re.compile(r"\s*(?:[\w ]+: *)?\d+%\|.*|step \d+.*|\S+ is at step \d+ of \d+|\s*")
# open_clip before transformers, which may not be imported where torchvision does not fit torch.
WITH_TORCH = ["from support.open_clip_shim import import_open_clip", "import_open_clip()"]


def read(name: str) -> Any:
    """The notebook as committed."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def code_of(name: str) -> str:
    """The code of all its cells."""
    return "\n\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")


def execute(name: str, folder: Path, ask: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """Runs a notebook in `folder`; returns what expressions are worth at its end, by name, and the notebook.

    `ask` has the expressions, whose values must be good for JSON. The kernel has one CPU device, as a reader's has,
    and none of the settings that the tests have for JAX but the folder of compiled programs. Raises the notebook's own
    errors, its assertions' among them.
    """
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # or jupyter_core warns
    from nbclient import NotebookClient

    notebook = read(name)
    answers = ", ".join(f"{key!r}: {expression}" for key, expression in ask.items())
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{answers}}}))", id="asked"))
    left_out = ("XLA_FLAGS", "JAX_NUMPY_RANK_PROMOTION", "MPLBACKEND")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "IPYTHONDIR": str(folder / ".ipython")}
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=[f"--IPKernelApp.exec_lines={json.dumps(WITH_TORCH)}"] if name == "converting" else [],
    )
    client.execute(env=environment)
    return json.loads(notebook.cells[-1].outputs[0].text), notebook


def pictures(notebook: Any) -> int:
    """How many pictures it shows."""
    return sum("image/png" in output.get("data", {}) for output in _outputs(notebook))


def unexpected_lines(notebook: Any) -> list[str]:
    """What a reader would be surprised by on stderr: warnings, above all."""
    shown = "".join(output.text for output in _outputs(notebook) if output.get("name") == "stderr")
    return [line for line in re.split(r"[\r\n]+", shown) if not PROGRESS.fullmatch(line)]


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
