"""What doctor found, as a table for the terminal."""

import textwrap

from clip_jax.tpu.doctor.examination import STATUSES, Check, Report

LEAST = 60  # columns


def report_text(report: Report, width: int) -> str:
    """A row a check, `width` columns wide: its name, its status, what was seen and, below, what to do about it."""
    name_width = max(len(check.name) for check in report.checks) + 2
    status_width = max(map(len, STATUSES)) + 2
    indent = name_width + status_width
    room = max(width, LEAST) - indent
    lines = [f"{'check':{name_width}}{'status':{status_width}}what was seen"]
    for check in report.checks:
        finding = check.finding
        seen = _wrapped(finding.seen, room)
        lines.append(f"{check.name:{name_width}}{finding.status:{status_width}}{seen[0]}")
        advice = _wrapped(f"-> {finding.advice}", room, "   ") if finding.advice else []
        lines += [" " * indent + line for line in seen[1:] + advice]
    return "\n".join([*lines, "", _verdict(report)])


def progress_line(check: Check) -> str:
    """Said as soon as a check is done."""
    return f"doctor: {check.name}: {check.finding.status} ({check.seconds:.1f} s)"


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    # Paths are broken nowhere but where they are longer than a line.
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _verdict(report: Report) -> str:
    counts = {status: sum(check.finding.status == status for check in report.checks) for status in STATUSES}
    told = [f"{count} {status}" for status, count in reversed(counts.items()) if count]
    return ("not ready: " if report.failed else "ready: ") + ", ".join(told)
