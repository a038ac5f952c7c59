"""The clock of a published wheel's build, set again on what a rebuild wrote by itself."""

import re
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from reprobuild.archive import open_archive
from reprobuild.wheelfile import WheelFile
from reprobuild.ziptime import seconds_of

#: How far apart the recorded times of what one build wrote may lie, in seconds.
_CLOCK_WINDOW = 3600


@dataclass(frozen=True, slots=True)
class Replay:
    """The recorded clock, set on the members that the rebuild itself wrote.

    Attributes:
        members: their names.
        first, last: the earliest and the latest recorded time, as the wheel has them.
    """

    members: tuple[str, ...]
    first: str
    last: str


def set_clock(published: WheelFile, made: Path, started: int, offset: int = 0) -> Replay | None:
    """Set the published wheel's recorded times on what the rebuild itself wrote, and on nothing else.

    Without SOURCE_DATE_EPOCH a build's own files carry the time at which it ran, which no rebuild can have. A member
    counts as written by the rebuild when its time isn't before the rebuild's start; its recorded time is taken only
    if all these lie within an hour. Nothing but the two bytes of time and the two of date in each header changes.

    Args:
        made: the rebuilt wheel, changed in place.
        started: when the rebuild started, in seconds since 1970.
        offset: seconds that the build's time zone is ahead of UTC. Some backends write local time, some UTC.

    Returns:
        What was replayed; None when nothing was.
    """
    recorded = {entry.name: entry.mtime for entry in published.entries}
    with open_archive(made) as archive:
        record = next((entry for entry in archive.entries if entry.name.endswith(".dist-info/RECORD")), None)
        # Every build writes RECORD anew: its time, which is now, says whose time the zip has.
        now = int(time.time()) + 2
        ahead = offset if record and started - 2 <= seconds_of(record.mtime) - offset <= now else 0
        written = [entry for entry in archive.entries if seconds_of(entry.mtime) - ahead >= started // 2 * 2]
    times = sorted(recorded[entry.name] for entry in written if entry.name in recorded)
    if not times or len(times) < len(written) or seconds_of(times[-1]) - seconds_of(times[0]) > _CLOCK_WINDOW:
        return None
    with made.open("r+b") as stream:
        for entry in written:
            # APPNOTE 4.3.7 and 4.3.12: a header has the time 10 bytes from its start, a record of the directory 12.
            for at in (entry.offset + 10, entry.directory_offset + 12):
                stream.seek(at)
                stream.write(_dos(recorded[entry.name]))
    return Replay(tuple(entry.name for entry in written), times[0], times[-1])


def _dos(mtime: str) -> bytes:
    """A zip's time and date (APPNOTE 4.4.6), which may be none that a calendar has."""
    year, month, day, hour, minute, second = map(int, re.findall(r"\d+", mtime))
    return struct.pack("<HH", hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
