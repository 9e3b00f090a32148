"""The loop of a launch against recorded answers: which commands, in which order, and how it ends."""

import pytest
from support.recorded_gcloud import (
    BROKEN,
    JOB,
    NO_LOGIN,
    NO_ROOM,
    NO_SLICE,
    ONCE,
    QUEUE,
    WHERE,
    Clock,
    Recorded,
    kind_of,
    log,
    node,
    queued,
    states,
    supervised,
)

from clip_jax.errors import UserError
from clip_jax.tpu.launch.remote_training import LAST_LINES
from clip_jax.tpu.launch.runner import Result


def test_success():
    said = []
    runner = Recorded(
        describe=[NO_SLICE, node("CREATING"), node("READY")],
        watch=[log("active", "step 1\n", 7), log("active", "step 2\n", 14), log("0", "step 3\n", 21)],
        state=[states("0", "0", "active"), states("0", "0", "0")],
    )
    report = supervised(runner, Clock(), said)
    assert (report.outcome, report.preemptions, report.crashes) == ("done", 0, 0)
    assert runner.kinds == ["pack", "create", *ONCE]
    assert [line for line in said if line.startswith("step")] == ["step 1", "step 2", "step 3"]
    offsets = [line[-1].split()[-1] for line in runner.commands if kind_of(line) == "watch"]
    assert offsets == ["-1", "7", "14"]


def test_preempted_twice_then_done():
    """Also where the workers end in other ways, and where there is no capacity for a while."""
    clock, said = Clock(), []
    runner = Recorded(
        describe=[
            *(NO_SLICE, node("READY"), *[node("PREEMPTED")] * 3),  # worker 0 gone
            *(NO_SLICE, NO_SLICE, NO_SLICE, node("READY"), *[node("PREEMPTED")] * 2),  # code 75
            *(NO_SLICE, node("READY")),
        ],
        create=[Result(0), NO_ROOM, NO_ROOM, Result(0), Result(0)],
        watch=[BROKEN, log("75", "checkpoint saved\n"), log("0", "done\n")],
        state=[states("75", "2"), states("0", "0")],
    )
    report = supervised(runner, clock, said)
    assert (report.outcome, report.preemptions, report.crashes) == ("done", 2, 0)
    assert runner.kinds == [
        *("pack", "create", *ONCE, "delete", "create", "create", "create", *ONCE, "delete", "create", *ONCE)
    ]
    assert clock.pauses == [60, 120]
    assert sum("no capacity" in line for line in said) == 2


def test_a_queued_resource_that_is_suspended():
    said = []
    runner = Recorded(
        describe=[
            *(NO_SLICE, queued("WAITING_FOR_RESOURCES"), queued("PROVISIONING"), queued("ACTIVE")),
            *(*[queued("SUSPENDING")] * 3, queued("SUSPENDED"), NO_SLICE, queued("ACTIVE")),
        ],
        watch=[BROKEN, log("0", "")],
        state=[states("0")],
    )
    report = supervised(runner, Clock(), said, queued=True)
    assert (report.outcome, report.preemptions) == ("done", 1)
    assert [line for line in runner.commands if kind_of(line) == "delete"] == [
        f"{QUEUE} delete my-run {WHERE} --force".split()
    ]
    assert [word for word in said if word.startswith("my-run is ")] == [
        f"my-run is {word}" for word in ("WAITING_FOR_RESOURCES", "PROVISIONING", "SUSPENDING", "SUSPENDED")
    ]


def test_half_an_answer_is_no_end():
    """Worker 0 is done and answers, the others have been taken away."""
    runner = Recorded(
        describe=[NO_SLICE, node("READY"), *[node("PREEMPTED")] * 3, NO_SLICE, node("READY")],
        watch=[log("0", "")],
        state=[Result(255, states("0").out, "unreachable"), states("0", "0")],
    )
    report = supervised(runner, Clock(), [])
    assert (report.outcome, report.preemptions) == ("done", 1)


def test_a_users_mistake_is_not_tried_again():
    """Of one worker: the others then lose it."""
    said = []
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        watch=[log("1", "")],
        state=[states("1", "2")],
        last=[Result(0, "host-1: clip-jax: config has no key 'optimiser'\n")],
    )
    report = supervised(runner, Clock(), said)
    assert (report.outcome, report.crashes) == ("mistake", 0)
    assert runner.kinds == ["pack", "create", *ONCE, "last"]
    assert said[-1].endswith("host-1: clip-jax: config has no key 'optimiser'")
    assert runner.commands[-1][-1].endswith(f"last {LAST_LINES}")


@pytest.mark.parametrize("found", [("1", "137", "1"), ("74", "1", "1"), ("74", "74", "74")])
def test_crashes_are_tried_again_later_and_later(found):
    clock, said = Clock(), []
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[log(found[0], "")], state=[states(*found)])
    report = supervised(runner, clock, said)
    assert (report.outcome, report.crashes) == ("crashed", 3)
    assert runner.kinds == ["pack", "create", *[*ONCE, "last"] * 3]
    assert clock.pauses == [60, 120]
    assert "3 attempts in a row without a newer checkpoint" in said[-1]


def begun_at(step: int, code: str) -> Result:
    """The log of an attempt that went on from a checkpoint and ended with `code`."""
    return log(code, f"gs://bucket/run is at step {step} of 5000\n")


@pytest.mark.parametrize("code", ["1", "75"])
def test_attempts_that_get_further_are_counted_anew(code):
    """However long they last: only a newer checkpoint counts, and attempts that come to none are given up."""
    clock, said = Clock(), []
    watched = [log(code, ""), *(begun_at(step, code) for step in (0, 100, 100, 200, 200, 200))]
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=watched, state=[states(code)])
    report = supervised(runner, clock, said)
    assert (report.outcome, report.crashes) == ("crashed", 7 if code == "1" else 0)
    assert runner.kinds.count("start") == 7
    assert clock.pauses == ([60, 120, 60, 120, 60, 120] if code == "1" else [])


def test_a_failed_installation_counts_as_a_crash():
    said = []
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        install=[Result(1, "", "error: Failed to fetch"), Result(0)],
        watch=[log("0", "")],
        state=[states("0")],
    )
    assert supervised(runner, Clock(), said).crashes == 1
    assert "that failed: error: Failed to fetch" in said


def test_a_broken_connection_costs_nothing():
    """Training goes on without it; what was logged meanwhile is shown, nothing twice."""
    said = []
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        watch=[log("active", "step 1\n", 7), BROKEN, BROKEN, log("0", "step 2\nstep 3\n", 21)],
        state=[BROKEN, states("0", "0")],
    )
    report = supervised(runner, Clock(), said)
    assert (report.outcome, report.crashes) == ("done", 0)
    assert runner.kinds == ["pack", "create", *ONCE]
    assert [line for line in said if line.startswith("step")] == ["step 1", "step 2\nstep 3"]
    assert sum("does not answer" in line for line in said) == 1


def test_a_login_that_runs_out_can_be_renewed():
    """Training goes on meanwhile, and the launcher goes on when gcloud does."""
    runner = Recorded(
        describe=[NO_SLICE, node("READY"), NO_LOGIN, NO_LOGIN, NO_LOGIN, node("READY")],
        watch=[log("active", "step 1\n", 7), *[NO_LOGIN] * 3, log("0", "step 2\n", 14)],
        state=[states("0")],
    )
    assert supervised(runner, Clock(), []).outcome == "done"
    assert runner.kinds == ["pack", "create", *ONCE]


def test_a_worker_that_never_answers_is_given_up():
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[BROKEN])
    assert supervised(runner, Clock(), []).outcome == "unreachable"


def test_coming_back_to_a_training_that_runs():
    """Also where its workers do not answer at once: nothing is started over it."""
    runner = Recorded(
        describe=[node("READY")],
        state=[BROKEN, BROKEN, states("active", "active", run=JOB.run), states("0", "0", run=JOB.run)],
        watch=[log("0", "the end\n")],
    )
    assert supervised(runner, Clock(), []).outcome == "done"
    assert runner.kinds == ["pack"]


def test_coming_back_to_workers_that_never_answer():
    runner = Recorded(describe=[node("READY")], state=[BROKEN])
    with pytest.raises(UserError, match="my-run does not answer, so training may or may not run on it"):
        supervised(runner, Clock(), [])
    assert runner.kinds == ["pack"]


def test_coming_back_to_a_slice_that_goes_meanwhile():
    runner = Recorded(
        describe=[node("READY"), node("READY"), *[node("PREEMPTED")] * 2, NO_SLICE, node("READY")],
        state=[BROKEN, BROKEN, states("0")],
        watch=[log("0", "")],
    )
    report = supervised(runner, Clock(), [])
    assert (report.outcome, report.preemptions) == ("done", 1)
    assert runner.kinds == ["pack", "delete", "create", *ONCE]


def test_coming_back_to_a_slice_without_a_training():
    """As where the launch before was interrupted before it installed anything."""
    runner = Recorded(
        describe=[node("READY")], state=[states("absent", run="none"), states("0")], watch=[log("0", "the end\n")]
    )
    assert supervised(runner, Clock(), []).outcome == "done"
    assert runner.kinds == ["pack", *ONCE]


def test_coming_back_with_another_training_is_refused():
    runner = Recorded(describe=[node("READY")], state=[states("active", run="ffffffffffff")])
    with pytest.raises(UserError, match="at work on something else"):
        supervised(runner, Clock(), [])
    assert runner.kinds == ["pack"]


def test_a_slice_that_was_preempted_meanwhile_is_replaced():
    runner = Recorded(describe=[node("PREEMPTED"), NO_SLICE, node("READY")], watch=[log("0", "")], state=[states("0")])
    assert supervised(runner, Clock(), []).outcome == "done"
    assert runner.kinds == ["pack", "delete", "create", *ONCE]


def test_what_cannot_be_packed():
    runner = Recorded(pack=[Result(128, "", "fatal: not a git repository")])
    with pytest.raises(UserError, match="cannot pack the source tree: fatal: not a git repository"):
        supervised(runner, Clock(), [])
    assert runner.kinds == ["pack"]
