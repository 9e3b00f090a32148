"""What gcloud and the workers say, read."""

import pytest
from support.recorded_gcloud import BROKEN, NO_NETWORK, NO_SLICE, Recorded, node, queued

from clip_jax.errors import UserError
from clip_jax.tpu.launch.request import Slice
from clip_jax.tpu.launch.runner import Result
from clip_jax.tpu.launch.state import Sighting, find, look, verdict, workers

WHERE = Slice("my-run", "us-west4-a")


@pytest.mark.parametrize(
    ("found", "ending"),
    [
        (["0", "0"], "done"),
        (["75", "2"], "requeue"),
        (["75", "75"], "requeue"),
        (["75", "74"], "requeue"),
        (["2", "2"], "mistake"),
        (["2", "0"], "mistake"),
        (["1", "2", "1"], "mistake"),  # the others have lost it
        (["134", "2"], "mistake"),  # as JAX's runtime ends where another process has gone
        (["74", "1"], "crashed"),
        (["74", "74"], "crashed"),
        (["74", "2"], "crashed"),
        (["1", "137"], "crashed"),
        (["0", "absent"], "crashed"),
        (["0", "active"], "crashed"),
        (["stopped", "stopped", "2"], "stopped"),
        ([], "crashed"),
    ],
)
def test_verdicts(found, ending):
    assert verdict(found) == ending


def test_workers_are_found_among_other_output():
    text = "Warning: Permanently added\nworker t1v-n-0 75 0123456789ab\nworker t1v-n-1 active none\nnot a worker line\n"
    assert [(one.host, one.state, one.run) for one in workers(text)] == [
        ("t1v-n-0", "75", "0123456789ab"),
        ("t1v-n-1", "active", "none"),
    ]


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (NO_SLICE, Sighting("absent")),
        (node("CREATING"), Sighting("waiting", "CREATING", label="v5e-4x4-spot")),
        (node("READY", None), Sighting("ready", "READY")),
        (node("PREEMPTED", "v4-2x2x4-spot"), Sighting("lost", "PREEMPTED", label="v4-2x2x4-spot")),
        (queued("FAILED", message="no"), Sighting("failed", "FAILED", "no", "v5e-4x4-spot-queued")),
        (queued("ACTIVE", 2), Sighting("ready", "ACTIVE", label="v5e-4x4-spot-queued")),
    ],
)
def test_sightings(answer, seen):
    assert look(WHERE, Recorded(describe=[answer]))[1] == seen


@pytest.mark.parametrize("answer", [NO_NETWORK, BROKEN, Result(0, "not JSON"), Result(0, "[]"), Result(0, "{}")])
def test_what_says_nothing_of_the_slice(answer):
    assert look(WHERE, Recorded(describe=[answer]))[1].condition == "unknown"


def test_finding_a_slice_of_either_kind():
    where, sighting = find(WHERE, Recorded(describe=[queued("ACTIVE", 3)]))
    assert (where.queued, where.nodes, sighting.word) == (True, 3, "ACTIVE")
    where, sighting = find(WHERE, Recorded(describe=[NO_SLICE, node("READY")]))
    assert (where.queued, where.nodes, sighting.word) == (False, 1, "READY")
    with pytest.raises(UserError, match="there is no slice my-run in us-west4-a"):
        find(WHERE, Recorded(describe=[NO_SLICE]))
    with pytest.raises(UserError, match="gcloud describe failed: ERROR: gcloud crashed"):
        find(WHERE, Recorded(describe=[NO_NETWORK]))
