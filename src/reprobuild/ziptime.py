"""A zip's times, which are even and name no zone: what second each stands for, and the zones that explain them."""

import calendar
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from reprobuild.archive import Entry

_QUARTER_HOUR = 900
_FARTHEST_ZONE = 14 * 3600
#: Places with a summer time, one for each rule and offset that is common among those who publish wheels.
_SUMMER_ZONES = (
    "Europe/London",
    "Europe/Berlin",
    "Europe/Helsinki",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Halifax",
    "America/Sao_Paulo",
    "Australia/Sydney",
    "Australia/Adelaide",
    "Pacific/Auckland",
    "Asia/Jerusalem",
)
_RESOLUTION = 2  # seconds: a zip's time is even


def seconds_of(mtime: str) -> int:
    """A zip's time in seconds since 1970; 0 for none that a calendar has."""
    with suppress(ValueError):
        return calendar.timegm(time.strptime(mtime, "%Y-%m-%d %H:%M:%S"))
    return 0


def offset_of(timezone: str, seconds: int) -> int:
    """How many seconds a hypothesis' time zone is ahead of UTC at some moment, in seconds since 1970."""
    if found := re.match(r"<([+-])(\d\d)(\d\d)>", timezone):
        sign, hours, minutes = found.groups()
        return (int(hours) * 60 + int(minutes)) * (60 if sign == "+" else -60)
    with suppress(ZoneInfoNotFoundError):
        offset = datetime.fromtimestamp(seconds, ZoneInfo(timezone)).utcoffset()
        return int(offset.total_seconds()) if offset else 0
    return 0


def zone_of(pairs: Sequence[tuple[Entry, Entry]]) -> int | None:
    """How many seconds the wheel's times are ahead of the sdist's; None where these aren't the same times."""
    apart = Counter(seconds_of(inner.mtime) - other.seconds // _RESOLUTION * _RESOLUTION for inner, other in pairs)
    if not apart:
        return None
    offset, count = apart.most_common(1)[0]
    rounded = round(offset / _QUARTER_HOUR) * _QUARTER_HOUR
    if abs(offset - rounded) > _RESOLUTION or abs(rounded) > _FARTHEST_ZONE or count < len(pairs) / 2:
        return None
    return rounded


def named_zone(pairs: Sequence[tuple[Entry, Entry]]) -> str:
    """A time zone with a summer time that explains every member's time; empty where there aren't two offsets."""
    times = {(seconds_of(inner.mtime), other.seconds // _RESOLUTION * _RESOLUTION) for inner, other in pairs}
    if len({shown - known for shown, known in times}) < 2:
        return ""
    for name in _SUMMER_ZONES:
        with suppress(ZoneInfoNotFoundError):
            zone = ZoneInfo(name)
            moments = ((shown - known, datetime.fromtimestamp(known, zone).utcoffset()) for shown, known in times)
            if all(offset is not None and offset.total_seconds() == apart for apart, offset in moments):
                return name
    return ""


def posix_zone(offset: int) -> str:
    """A time zone so many seconds ahead of UTC, in POSIX's notation, where the sign is the other way round."""
    sign, (hours, minutes) = ("-" if offset > 0 else "+"), divmod(abs(offset) // 60, 60)
    name = f"<{'+' if offset > 0 else '-'}{hours:02}{minutes:02}>"
    return f"{name}{sign}{hours:02}:{minutes:02}" if offset else "UTC"


def epoch_of(common: str, pairs: Sequence[tuple[Entry, Entry]]) -> int:
    """The second that a zip's time stands for: where it can be told, the one that the sdist has."""
    seconds = seconds_of(common)
    exact = Counter(other.seconds for _, other in pairs if 0 <= other.seconds - seconds < _RESOLUTION)
    return exact.most_common(1)[0][0] if exact else seconds
