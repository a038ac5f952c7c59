import json
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprobuild.errors import BadInput
from reprobuild.project import check_time, load

KEYS = st.sampled_from(
    """tool reprobuild wheel images environments project build-system requires build-backend backend-path python
    exclude-newer environment config-settings readable path sandbox timeout extras groups platform name
    requires-python a .""".split()
)
# JSON is nearly TOML: what JSON spells, the inline tables and arrays of TOML 1.0 can hold, but for null.
SCALARS = st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "/x", "auto", "2026-05-01", ">=3", "a>1"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=10)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def toml(value):
    """A value as TOML spells it within one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


def load_text(text):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(text, encoding="utf-8")
        return load(Path(folder))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(KEYS, VALUES), VALUES, VALUES)
def test_any_toml_is_read_or_refused(document, tool, wheel):
    text = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in document.items() if key != "tool")
    for tables in (f"tool.reprobuild = {toml(tool)}", f"tool.reprobuild.wheel = {toml(wheel)}"):
        with suppress(BadInput):
            assert load_text(f"{tables}\n{text}").selections[0].output == "requirements.txt"


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text):
    with suppress(BadInput):
        load_text(text)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=ZONES))  # noqa: DTZ001
def test_every_moment_keeps_its_place_in_time(moment):
    read = check_time(moment.isoformat(), "x")
    assert datetime.fromisoformat(read) == moment.astimezone(UTC).replace(microsecond=0)
    assert check_time(read, "x") == read


@given(st.text() | st.datetimes(timezones=st.none() | ZONES).map(datetime.isoformat))
def test_any_text_is_a_time_or_refused(text):
    with suppress(BadInput):
        assert check_time(text, "x").endswith("Z")
