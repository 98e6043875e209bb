"""The readers of files under bytes that nobody wrote: they take them or refuse them in words."""

import gzip
import tracemalloc

import pytest
from fuzz import TARGETS, seeds, try_one
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PEAK = 5_000_000  # bytes: a few pieces of 1 MB, whatever a header promises
NAMES = {"idx": "IDX", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "archive": ".tar.gz"}
NAMES |= {"picture": "pictures"}


def edited(content, edits, length):
    """The content with some bytes overwritten, and cut off or made longer."""
    content = bytearray(content)
    for share, new in edits:
        start = int(share * len(content))
        content[start : start + len(new)] = new
    return bytes(content[: int(length * len(content))]) + bytes(int(max(0, length - 1) * 1000))


EDITS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 1), st.floats(0, 0.1)),
        st.one_of(
            st.binary(max_size=8), st.sampled_from([b"\xff\xff\xff\xff", b"7777777777", b"\0"])
        ),
    ),
    max_size=5,
)
LENGTH = st.one_of(st.just(1.0), st.floats(0, 2))


def search(target, num_examples, faults):
    @settings(max_examples=num_examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds(target)), EDITS, LENGTH)
    def one(content, edits, length):
        content = edited(content, edits, length)
        with faults("files", f"{NAMES[target]}: other bytes"):
            tracemalloc.start()
            try:
                try_one(target, content)
                assert tracemalloc.get_traced_memory()[1] < PEAK
            finally:
                tracemalloc.stop()

    one()


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_taken_and_a_third_of_them_is_not(target):
    for seed in seeds(target):
        assert try_one(target, seed) and not try_one(target, seed[: len(seed) // 3])


@pytest.mark.parametrize("target", TARGETS)
def test_other_bytes(target, faults):
    search(target, 25, faults)


@pytest.mark.faults
@pytest.mark.parametrize("target", TARGETS)
def test_many_other_bytes(target, faults):
    search(target, 500, faults)


@pytest.mark.faults
@pytest.mark.parametrize("target", TARGETS)
def test_cut_off_anywhere(target, faults):
    for seed in seeds(target):
        for size in (*range(min(len(seed), 300)), *range(300, len(seed), 97)):
            with faults("files", f"{NAMES[target]}: cut off"):
                try_one(target, seed[:size])
                try_one(target, gzip.compress(seed)[:size])
