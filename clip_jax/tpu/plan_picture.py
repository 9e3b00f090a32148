"""A picture of where a device's memory goes."""

from pathlib import Path

from clip_jax.errors import UserError
from clip_jax.tpu.plan import Plan
from clip_jax.tpu.plan_text import memory_parts
from clip_jax.training.chips import GIB

FORMATS = (".png", ".svg", ".pdf")
COLOURS = {
    "parameters": "#4269d0",
    "average of parameters": "#6f8fe0",
    "optimizer state": "#97bbf5",
    "batch": "#efb118",
    "gradients and activations": "#ff725c",
    "needed": "#ff725c",
}


def draw_plans(plans: list[Plan], path: Path) -> None:
    """One bar a plan, in GiB a device, with the device's memory as a line. Raises UserError for a path that fails."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 + 0.7 * len(plans)), layout="constrained")
    axes = figure.subplots()
    named = set()
    for row, plan in enumerate(plans):
        left = 0.0
        for name, size in memory_parts(plan).items():
            if name == "peak":
                continue
            width = (size - left * GIB if name == "needed" else size) / GIB
            label = "" if name in named else ("beyond what is there" if name == "needed" else name)
            axes.barh(row, width, left=left, color=COLOURS[name], height=0.6, label=label)
            named.add(name)
            left += width
        available = plan.available / GIB
        axes.plot([available] * 2, [row - 0.4, row + 0.4], color="black", linewidth=2)
        verdict = "" if plan.fits else "  does not fit"
        axes.text(max(left, available), row, f" {available:.2f} GiB{verdict}", va="center", fontsize=9)
    axes.set_yticks(range(len(plans)), [f"{p.topology}\nbatch {p.config.batch_size:,}" for p in plans], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("GiB of a device")
    axes.set_title(f"{plans[0].config.model.name}: memory of an update", loc="left")
    axes.margins(x=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write the picture {path}: {error}") from error
