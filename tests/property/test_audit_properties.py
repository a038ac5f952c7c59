"""Whatever is found and ignored: what counts, and what is one vulnerability."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from reprobuild import advisories, audit
from reprobuild.advisories import Advisory, Package, Severity
from reprobuild.audit import Finding
from reprobuild.digest import Digest
from reprobuild.policy import Audit
from reprobuild.project import Ignore

NAMES = st.sampled_from(["CVE-1", "CVE-2", "GHSA-1", "GHSA-2", "PYSEC-1"])
PACKAGES = st.sampled_from([Package.of(name, Version(version)) for name in "ab" for version in ("1", "2")])
SEVERITIES = st.sampled_from(list(Severity))
DAYS = st.dates(date(2026, 1, 1), date(2026, 12, 31))
IGNORES = st.builds(Ignore, NAMES, st.just("why"), DAYS, st.sampled_from(["", "a", "b"]))
ADVISORIES = st.builds(
    Advisory,
    PACKAGES,
    NAMES,
    st.lists(NAMES, max_size=2).map(tuple),
    st.just(()),
    st.text(max_size=5),
    SEVERITIES,
)


@given(ADVISORIES, st.lists(IGNORES, max_size=5), DAYS)
def test_something_is_ignored_if_and_only_if_an_ignore_that_means_it_is_good(one, ignores, today):
    source = audit.Source("lock", Digest.of_bytes(b""), (audit.Pinned(one.package, 1),))
    found = audit._judged(one, [source], ignores, today)
    meant = [each for each in ignores if each.id in one.names and each.package in ("", one.package.name)]
    assert (found.ignored is not None) == any(today <= each.expires for each in meant)
    assert (found.expired is not None) == (bool(meant) and found.ignored is None)
    assert found.counts(Severity.LOW) == (found.ignored is None)


@given(ADVISORIES, st.lists(IGNORES, max_size=5), DAYS, st.integers(0, 400))
def test_time_alone_never_makes_something_ignored(one, ignores, today, days):
    before, after = (audit._judged(one, [], ignores, day) for day in (today, today + timedelta(days)))
    assert before.ignored or not after.ignored


@given(SEVERITIES, SEVERITIES, SEVERITIES)
def test_what_fails_at_a_severity_fails_at_each_lower_one(found, least, lower):
    one = Finding(Advisory(Package.of("a", Version("1")), "X", (), (), "", found), ())
    if one.counts(least) and lower.rank <= least.rank:
        assert one.counts(lower)
    assert one.counts(found)
    assert one.counts(Severity.CRITICAL) >= (found is Severity.UNKNOWN)


@given(SEVERITIES, st.sampled_from([None, *(each for each in Severity if each is not Severity.UNKNOWN)]))
def test_a_policy_bears_exactly_what_an_audit_from_the_next_severity_on_lets_pass(found, most):
    bears = Audit(timedelta(days=1), most).bears(found)
    least = Severity.LOW if most is None else list(Severity)[most.rank + 1]
    one = Finding(Advisory(Package.of("a", Version("1")), "X", (), (), "", found), ())
    assert bears is not one.counts(least)


@given(st.lists(ADVISORIES, max_size=6), st.randoms())
def test_merging_leaves_nothing_out_and_no_name_twice(found, random):
    merged = advisories._merged(found)
    names = {(each.package, name) for each in found for name in each.names}
    told = [(each.package, name) for each in merged for name in each.names]
    assert set(told) == names
    assert len(told) == len(set(told))
    shuffled = list(found)
    random.shuffle(shuffled)
    groups = {(each.package, each.names) for each in merged}
    assert {(each.package, each.names) for each in advisories._merged(shuffled)} == groups
