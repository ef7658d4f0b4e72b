"""Random streams come from their keys and from nothing else."""

import hashlib
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graft.core.seeding import derive_seed, stream

KEYS = st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", "ab"]), st.integers(0, 5))


@given(KEYS, KEYS)
def test_seeds_are_equal_exactly_where_the_keys_are(one: tuple, other: tuple) -> None:  # type: ignore[type-arg]
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


def test_equal_keys_give_equal_streams_and_each_key_matters() -> None:
    keys = [("learn", *rest) for rest in itertools.product((0, 1), ("ann", "ben"), (0, 1))]
    draws = {key: tuple(stream(*key).random(4)) for key in keys}
    assert {key: tuple(stream(*key).random(4)) for key in keys} == draws
    assert len(set(draws.values())) == len(keys)


def test_keys_do_not_run_into_each_other() -> None:
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
    assert derive_seed("1", 2) == derive_seed(1, "2")  # the text of a key is what counts


def test_a_seed_is_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(b"learn\x1f0\x1fann").digest()
    assert derive_seed("learn", 0, "ann") == int.from_bytes(digest[:8], "big") // 2


def test_a_seed_fits_a_signed_word_and_spreads() -> None:
    seeds = np.array([derive_seed("spread", place) for place in range(1_000)])
    assert seeds.min() >= 0
    assert len(set(seeds)) == 1_000
    # 1,000 coins of the top bit: mean 1/2, deviation 0.016; four of them.
    assert abs((seeds >= 2**62).mean() - 0.5) < 0.064
