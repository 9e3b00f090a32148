"""Random numbers at places, against the textbook generator, which goes through them one after the other."""

import numpy as np

from clip_jax.data.splitmix import splitmix64

MASK = 2**64 - 1


def textbook(state: int, count: int) -> list[int]:
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(z ^ (z >> 31))
    return numbers


def test_numbers_are_those_of_the_generator():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # of seed 1234567
    assert textbook(1234567, 3) == published
    state = int(np.random.SeedSequence(5, spawn_key=(3,)).generate_state(1, np.uint64)[0])
    expected = np.array(textbook(state, 100), np.uint64)
    places = np.array([[0, 7], [99, 3]])
    np.testing.assert_array_equal(splitmix64(5, 3, places), expected[places])


def test_seeds_and_streams_differ():
    numbers = [splitmix64(seed, stream, np.arange(100)) for seed, stream in ((0, 3), (0, 4), (1, 3))]
    assert len(np.unique(numbers)) == 300
