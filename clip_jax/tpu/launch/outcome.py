"""How a launch ended, in words, and what of it is left and costs."""

from clip_jax.tpu.launch.request import Slice
from clip_jax.tpu.launch.supervisor import Report

WORDS = {
    "done": "training is done",
    "mistake": "training stopped at a mistake, which only you can mend",
    "crashed": "training ended again and again and came to no newer checkpoint",
    "stopped": "training was stopped",
    "unreachable": "the slice does not answer; training may go on there",
}


def report_text(report: Report, where: Slice, dollars_an_hour: float | None, deleted: bool) -> str:
    """How the training ended and what became of the slice, in lines."""
    said = f"{WORDS[report.outcome]} ({report.preemptions} preemptions, {report.crashes} crashes on the way)"
    if deleted:
        return f"{said}\n{where.name} is deleted"
    return (
        f"{said}. {where.name} is still there and costs{_an_hour(dollars_an_hour)}.\n"
        f"The same command begins again on it; {deletion(where)} ends it."
    )


def left_text(where: Slice, dollars_an_hour: float | None) -> str:
    """What is left where a launch broke off, in lines."""
    return (
        f"{where.name} may still be there, where training goes on and costs{_an_hour(dollars_an_hour)}, but nobody "
        "begins again after a preemption.\n"
        f"The same command comes back to it; {deletion(where)} ends it."
    )


def deletion(where: Slice) -> str:
    """The command that deletes a slice, as one would paste it."""
    project = f" --project {where.project}" if where.project else ""
    return f"clip-jax launch delete --name {where.name} --zone {where.zone}{project}"


def _an_hour(dollars: float | None) -> str:
    return "" if dollars is None else f", about ${dollars:,.2f} an hour"
