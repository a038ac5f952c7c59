from hypothesis import given
from hypothesis import strategies as st

from reprobuild.guilty import find

NAMES = tuple("abcdefghijklm")
some = st.sets(st.sampled_from(NAMES), max_size=len(NAMES))
together = st.lists(st.frozensets(st.sampled_from(NAMES), min_size=2, max_size=3), max_size=3)


def smallest(sets):
    """Those that hold no other one, in the order in which they are reported."""
    kept = {each for each in sets if not any(other < each for other in sets)}
    return sorted((tuple(sorted(each)) for each in kept), key=lambda each: (len(each) > 1, each))


class Builds:
    """Trials of which some sets alter the outcome; counted."""

    def __init__(self, sets):
        self.sets = sets
        self.tried = []

    def __call__(self, groups):
        self.tried += groups
        return [any(each <= group for each in self.sets) for group in groups]


@given(some.filter(bool), some)
def test_every_single_one_is_found_in_a_bounded_number_of_trials(guilty, suspects):
    builds = Builds([frozenset(name) for name in guilty])
    found = find(NAMES, builds, suspects=suspects)
    assert found.sets == tuple((name,) for name in sorted(guilty))
    assert found.complete
    # The suspects and the rest, its halves, each of the rest; what is left at the end.
    assert len(builds.tried) <= len(NAMES) + 4
    assert len(builds.tried) == len(set(builds.tried))
    assert frozenset() not in builds.tried
    assert frozenset(NAMES) not in builds.tried


@given(st.sampled_from(NAMES))
def test_a_single_suspect_costs_two_trials_and_an_unknown_one_at_most_nine(name):
    known, unknown = Builds([frozenset(name)]), Builds([frozenset(name)])
    assert find(NAMES, known, suspects=[name]).sets == find(NAMES, unknown).sets == ((name,),)
    assert len(known.tried) == 2
    assert len(unknown.tried) <= 9


@given(some, together, some)
def test_sets_that_matter_only_together_are_all_found(guilty, pairs, suspects):
    sets = [*(frozenset(name) for name in guilty), *pairs]
    if not sets:
        return
    builds = Builds(sets)
    found = find(NAMES, builds, suspects=suspects, limit=1000)
    assert list(found.sets) == smallest(sets)
    assert len(builds.tried) == len(set(builds.tried))


@given(st.permutations(NAMES), st.frozensets(st.sampled_from(NAMES), min_size=2, max_size=2))
def test_one_pair_among_thirteen_costs_at_most_two_dozen_trials(names, pair):
    builds = Builds([pair])
    (found,) = find(names, builds).sets
    assert frozenset(found) == pair
    assert len(builds.tried) <= 24


@given(some.filter(bool), together, st.integers(0, 12))
def test_a_search_that_is_given_up_reports_nothing_that_is_untrue(guilty, pairs, limit):
    sets = [*(frozenset(name) for name in guilty), *pairs]
    builds = Builds(sets)
    found = find(NAMES, builds, limit=limit)
    assert len(builds.tried) <= limit
    assert set(found.sets) <= set(smallest(sets))
    assert not found.complete or list(found.sets) == smallest(sets)
