import pytest

from reprobuild.errors import EXIT_CODE_MEANINGS, BadInput, ExitCode, ReprobuildError
from reprobuild.process import ToolFailed, ToolTimeout

KINDS = ReprobuildError.__subclasses__()


@pytest.mark.parametrize("kind", [ReprobuildError, *KINDS])
def test_an_error_carries_its_reason_and_its_remedy(kind):
    error = kind("The disk is full.", "Free some space.")
    assert (str(error), error.reason, error.remedy) == ("The disk is full.", "The disk is full.", "Free some space.")


def test_a_remedy_is_optional():
    assert BadInput("It is broken.").remedy == ""


def test_codes_are_what_scripts_rely_on():
    """A change here breaks every script out there: it needs a line in the changelog."""
    assert {kind.__name__: int(kind.exit_code) for kind in KINDS} == {
        "BadInput": 3,
        "ToolMissing": 4,
        "LockMissing": 5,
        "LockStale": 6,
        "BuildFailed": 7,
        "SourceUnusable": 8,
        "DigestMismatch": 9,
        "IndexFailed": 10,
        "RecordUnusable": 11,
        "SandboxUnavailable": 12,
        "WriteFailed": 13,
        "RegistryFailed": 14,
        "SigningFailed": 15,
        "NotComparable": 23,
        "EvidenceRefused": 25,
        "NotAudited": 27,
        "NotPublishable": 28,
        "PublishFailed": 29,
    }
    assert (ExitCode.OK, ExitCode.INTERNAL, ExitCode.USAGE, ExitCode.INTERRUPTED) == (0, 1, 2, 130)
    assert [int(code) for code in ExitCode if code.name.startswith(("DIFFERS", "NOT_"))] == [20, 21, 22, 23, 25, 27, 28]


def test_codes_stay_clear_of_the_shells_own():
    """126 and 127 are the shell's, from 128 on they mean signals (130 is SIGINT)."""
    assert all(code < 126 for code in ExitCode if code is not ExitCode.INTERRUPTED)


def test_a_programs_failure_is_a_failed_build():
    assert ToolFailed(["x"], 1, "").exit_code is ToolTimeout("x").exit_code is ExitCode.BUILD_FAILED


def test_meanings_are_one_line_each_and_all_different():
    assert not [text for text in EXIT_CODE_MEANINGS.values() if "\n" in text or text.endswith(".")]
    assert len(set(EXIT_CODE_MEANINGS.values())) == len(EXIT_CODE_MEANINGS)
