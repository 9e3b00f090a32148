"""A slice against recorded answers: asked for, refused, somebody else's, lost, deleted."""

import pytest
from support.recorded_gcloud import (
    NO_LOGIN,
    NO_NETWORK,
    NO_ROOM,
    NO_SLICE,
    Clock,
    Recorded,
    held_slice,
    node,
    queued,
)

from clip_jax.errors import UserError
from clip_jax.tpu.launch.runner import Result


def test_no_capacity_at_the_start_is_one_line():
    runner = Recorded(describe=[NO_SLICE], create=[NO_ROOM])
    held = held_slice(runner, Clock(), [])
    with pytest.raises(UserError, match=r"^cannot create my-run: the zone has no capacity .* --queued waits"):
        held.acquire(again=False)
    assert runner.kinds == ["create"]
    assert not held.there


def test_a_queued_resource_that_is_refused_is_one_line():
    runner = Recorded(describe=[NO_SLICE, queued("FAILED", message="no such accelerator")])
    with pytest.raises(UserError, match="Google refused my-run: no such accelerator"):
        held_slice(runner, Clock(), [], queued=True).acquire(again=False)


def test_a_queued_resource_that_is_refused_after_a_preemption():
    """Later and later, with the reason said, and not for ever; the lack of capacity alone is waited out."""
    clock, said = Clock(), []
    full = [queued("FAILED", message="There is no more capacity in the zone"), NO_SLICE]
    refused = [queued("FAILED", message="service account is gone"), NO_SLICE]
    runner = Recorded(describe=[*full * 4, *refused * 3])
    with pytest.raises(UserError, match="Google refused my-run: service account is gone"):
        held_slice(runner, clock, said, attempts=3, queued=True).acquire(again=True)
    assert clock.pauses == [60, 120, 240, 480, 960, 960]
    assert sum("service account is gone" in line for line in said) == 2
    assert runner.kinds == ["delete", "create"] * 6


OTHERS = {
    "another's": (None, "launch did not make it"),
    "another shape": ("v5e-16x16-spot", "clip-jax launch made it as v5e-16x16-spot, not as v5e-4x4-spot"),
    "other terms": ("v5e-4x4-on-demand", "clip-jax launch made it as v5e-4x4-on-demand, not as v5e-4x4-spot"),
}


@pytest.mark.parametrize("word", ["READY", "STOPPED", "CREATING"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_slice_that_is_not_the_one_asked_for_is_left_alone(word, other):
    label, message = OTHERS[other]
    runner = Recorded(describe=[node(word, label)])
    held = held_slice(runner, Clock(), [])
    with pytest.raises(UserError, match=f"my-run is there already, and .*{message}.*; choose another --name"):
        held.acquire(again=False)
    assert runner.kinds == []
    assert not held.there


def test_a_creation_that_failed_here_may_have_begun_there():
    said = []
    runner = Recorded(describe=[NO_SLICE, node("CREATING"), node("CREATING"), node("READY")], create=[NO_NETWORK])
    held = held_slice(runner, Clock(), said)
    assert not held.acquire(again=False)
    assert runner.kinds == ["create"]
    assert any("cannot create my-run: ERROR: gcloud crashed" in line and "but it is there" in line for line in said)


@pytest.mark.parametrize(("then", "there"), [(NO_SLICE, False), (NO_NETWORK, True), (NO_LOGIN, True)])
def test_a_creation_that_failed_for_no_known_reason(then, there):
    """What nobody can tell is told as something that may cost."""
    held = held_slice(Recorded(describe=[NO_SLICE, then], create=[NO_NETWORK]), Clock(), [])
    with pytest.raises(UserError, match="cannot create my-run: ERROR: gcloud crashed"):
        held.acquire(again=False)
    assert held.there == there


def test_a_login_that_is_missing_at_the_start():
    with pytest.raises(UserError, match="cannot look at my-run: gcloud has no login; gcloud auth login"):
        held_slice(Recorded(describe=[NO_LOGIN]), Clock(), []).acquire(again=False)


def test_a_login_that_runs_out_while_it_waits_for_another_slice():
    runner = Recorded(describe=[node("PREEMPTED"), NO_LOGIN, NO_LOGIN, NO_SLICE, node("READY")])
    assert not held_slice(runner, Clock(), []).acquire(again=True)
    assert runner.kinds == ["delete", "create"]


def test_waiting_for_capacity_again():
    clock, said = Clock(), []
    runner = Recorded(describe=[*[NO_SLICE] * 3, node("READY")], create=[NO_ROOM, NO_ROOM, Result(0)])
    assert not held_slice(runner, clock, said).acquire(again=True)
    assert clock.pauses == [60, 120]


def test_what_gcloud_never_says():
    clock = Clock()
    with pytest.raises(UserError, match="gcloud does not say how my-run is: gcloud describe failed"):
        held_slice(Recorded(describe=[NO_NETWORK]), clock, []).acquire(again=True)
    assert sum(clock.slept) == 20 * 30


def test_deleting_what_is_gone_already():
    """By gcloud's words for that, which name the account too."""
    runner = Recorded(delete=[NO_SLICE])
    held = held_slice(runner, Clock(), [])
    held.there = True
    held.remove()
    assert not held.there
    assert runner.kinds == ["delete"]


def test_a_slice_that_will_not_go():
    """A failure that nobody explains is tried again; what only the user can mend is not."""
    passing = Recorded(delete=[NO_NETWORK, Result(0)])
    held_slice(passing, Clock(), []).remove()
    assert passing.kinds == ["delete", "delete"]
    denied = Recorded(delete=[Result(1, "", "ERROR: (gcloud.x) PERMISSION_DENIED: no")])
    with pytest.raises(UserError, match=r"cannot delete my-run, which goes on to cost: .* roles/tpu.admin"):
        held_slice(denied, Clock(), []).remove()
    assert denied.kinds == ["delete"]
