"""Which of an image's records counts; what a check itself does is tested with real images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reprobuild.difference import Level
from reprobuild.errors import RecordUnusable
from reprobuild.image import verify
from reprobuild.image.archive import Registries
from reprobuild.progress import SILENT


@dataclass(frozen=True)
class FakeVerdict:
    level: Level


@dataclass(frozen=True)
class FakeChecked:
    verdict: FakeVerdict
    notes: tuple[str, ...] = field(default=())


class FakeImage:
    where = "the image"


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Checks an image whose records each come to a level, or are refused with a text."""

    def one(place, image, record, scratch, *rest):
        assert scratch.is_dir()
        if not isinstance(record, Level):
            raise RecordUnusable(record)
        return FakeChecked(FakeVerdict(record))

    image: Any = FakeImage()

    def check(*records):
        again = verify._Again(Path(), Registries(), None, "", "none", cross_engine=False, observer=SILENT)
        return verify._check_any(image, image, records, tmp_path, again)

    monkeypatch.setattr(verify, "_check", one)
    return check


def test_a_record_that_holds_counts_wherever_it_is(check):
    checked = check("wrong epoch", Level.PAYLOAD, Level.IDENTICAL, "never read")
    assert checked.verdict.level is Level.IDENTICAL
    (note,) = checked.notes
    assert "wrong epoch" in note


def test_where_none_gives_the_image_the_first_that_holds_is_told(check):
    assert check("wrong epoch", Level.PAYLOAD, Level.METADATA).verdict.level is Level.PAYLOAD


def test_where_none_holds_the_first_refusal_is_told(check):
    with pytest.raises(RecordUnusable, match="wrong epoch"):
        check("wrong epoch", "wrong lock")


def test_no_more_builds_are_made_than_a_few(check):
    with pytest.raises(RecordUnusable, match="has 9 records"):
        check(*["wrong epoch"] * 8, Level.IDENTICAL)
