"""The order of checks, and what happens to those that raise, hang or need another."""

import json
import time

from clip_jax.errors import UserError
from clip_jax.tpu.doctor.examination import Check, Examination, Finding, Report, agreed, examine


def finding_of(report: Report, name: str) -> Finding:
    return next(check.finding for check in report.checks if check.name == name)


def test_checks_that_fail_do_not_stop_the_others():
    def mistake() -> Finding:
        raise UserError("the disk is red; take a blue one")

    def accident() -> Finding:
        raise ZeroDivisionError("of all things")

    said: list[Check] = []
    report = examine(
        [
            Examination("mistake", mistake),
            Examination("accident", accident),
            Examination("late", lambda: Finding("ok", str(time.sleep(5))), seconds=0.05, if_late="be quicker"),
            Examination("needs it", lambda found: Finding("ok", found), ("mistake",)),
            Examination("needs that", lambda found: Finding("ok", found), ("needs it",)),
            Examination("wants it", lambda found: Finding("ok", f"got {found}", found=7), wants=("mistake",)),
            Examination("last", lambda found: Finding("ok", f"got {found}"), ("wants it",)),
        ],
        said.append,
    )
    assert [check.finding.status for check in report.checks] == ["failed"] * 3 + ["skipped"] * 2 + ["ok"] * 2
    assert finding_of(report, "mistake") == Finding("failed", "the disk is red", "take a blue one")
    assert "ZeroDivisionError: of all things" in finding_of(report, "accident").seen
    assert finding_of(report, "late") == Finding("failed", "it has not come to an end in 0.05 s", "be quicker")
    assert finding_of(report, "needs it").seen == "it needs 'mistake', which failed"
    assert finding_of(report, "needs that").seen == "it needs 'needs it', which was skipped"
    assert finding_of(report, "wants it").seen == "got None"
    assert finding_of(report, "last").seen == "got 7"
    assert tuple(said) == report.checks
    assert report.failed
    assert report.hangs


def test_processes_tell_each_other():
    """The other process finds all well but the third check; what it saw is shown, and what needs that is skipped."""
    others = {"a": ["ok", "", ""], "b": ["ok", "", ""], "c": ["failed", "no disk", "buy one"], "d": ["ok", "", ""]}
    order = iter(["a", "c", "d"])  # 'b' is the joining check, on which both agree by themselves

    def gather(text: str) -> list[str]:
        return [text, json.dumps(others[next(order)])]

    report = examine(
        [
            Examination("a", lambda: Finding("ok", "fine")),
            Examination("b", lambda: Finding("ok", "joined", found=gather), joins=True),
            Examination("c", lambda: Finding("ok", "fine")),
            Examination("d", lambda found: Finding("ok", "never"), ("c",)),
        ],
        lambda check: None,
    )
    assert report.joined
    assert finding_of(report, "a").seen == "fine"
    assert finding_of(report, "c") == Finding("failed", "process 1: no disk", "buy one")
    assert finding_of(report, "d").status == "skipped"


def test_a_process_that_does_not_answer_ends_the_examination(monkeypatch):
    monkeypatch.setattr("clip_jax.tpu.doctor.examination.GRACE", 0)

    def gather(text: str) -> list[str]:
        time.sleep(5)
        return [text]

    report = examine(
        [
            Examination("join", lambda: Finding("ok", "", found=gather), joins=True),
            Examination("a", lambda: Finding("ok", "fine"), seconds=0.05),
            Examination("b", lambda: Finding("ok", "fine")),
        ],
        lambda check: None,
    )
    assert report.hangs
    assert "does not answer" in finding_of(report, "a").seen
    assert finding_of(report, "b") == Finding("skipped", "an earlier check has not come back")


def test_the_worst_finding_counts():
    texts = [json.dumps(one) for one in (["ok", "a", ""], ["warning", "b", "x"], ["failed", "c", "y"]) for _ in (0, 1)]
    found = agreed(Finding("ok", "a"), lambda text: texts)
    assert (found.status, found.seen, found.advice) == ("failed", "process 4 and 1 more: c", "y")
