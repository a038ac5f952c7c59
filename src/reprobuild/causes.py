"""Why two builds differ: the named causes, and the evidence that each of them needs.

Every test here is conservative: a cause is named when replacing just what it explains makes the two
texts equal, or when each side holds the very value that is known to differ between the two builds.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason why two builds differ.

    Attributes:
        name: the key in :data:`CAUSES`.
        summary: what happened, one sentence.
        remedy: what the user can do, one sentence.
    """

    name: str
    summary: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Hint:
    """A value known to differ between the two builds.

    Attributes:
        variable: path, home, hostname, user, timezone, locale, hash-seed, jobs, umask or python.
        left, right: its value in the left and in the right build.
    """

    variable: str
    left: str
    right: str


#: Every cause that a comparison can name.
CAUSES: dict[str, Cause] = {
    cause.name: cause
    for cause in (
        Cause(
            "missing-file",
            "One build has a file that the other lacks.",
            "Build from a clean export of the commit, so that no old build/ or egg-info folder and "
            "no untracked file takes part.",
        ),
        Cause(
            "not-in-sdist",
            "The published wheel has a file, or a text from one, that its sdist lacks.",
            "Publish an sdist with every file that the wheel is made from, and build the wheel from that sdist.",
        ),
        Cause(
            "not-as-in-sdist",
            "A file of the published wheel has other content than the same file of its sdist, which a build copies "
            "as it is.",
            "Find out where the wheel was made and from what: it isn't what the sdist says. Build it from the sdist.",
        ),
        Cause(
            "repaired",
            "The published wheel was compiled in a manylinux or musllinux image and repaired afterwards: compiler, "
            "libraries and tags are those of that image, and what else may differ in them can't be told from it.",
            "Make it again in that image, and repair it with the same version of auditwheel.",
        ),
        Cause(
            "requirement-gone",
            "The index no longer offers versions that satisfy the source's build requirements.",
            "Mirror the build requirements of what you publish, or name ranges that still have releases.",
        ),
        Cause(
            "operating-system",
            "One wheel was made on Windows, the other on a system of Unix's kind: the zip entries say so.",
            "Build on the same operating system.",
        ),
        Cause(
            "build-path",
            "The path of the build folder got into the artifact.",
            "Build at a fixed path, as `reprobuild wheel` does, and give C and C++ compilers "
            "-ffile-prefix-map=$PWD=. as well.",
        ),
        Cause(
            "home",
            "The path of the home folder got into the artifact.",
            "Build with a fixed HOME, and stop the build from writing it down.",
        ),
        Cause(
            "hostname",
            "The name of the machine got into the artifact.",
            "Build under a fixed host name, and stop the build from writing it down.",
        ),
        Cause(
            "user",
            "The name of the user got into the artifact.",
            "Build as a fixed user, and stop the build from writing the name down.",
        ),
        Cause(
            "timezone",
            "A time was written in the time zone of the machine.",
            "Set TZ=UTC for the build, and write times in UTC.",
        ),
        Cause(
            "locale",
            "The locale of the machine got into the artifact.",
            "Set LC_ALL=C.UTF-8 for the build.",
        ),
        Cause(
            "hash-seed",
            "The order of a set, or a hash, got into the artifact: both follow Python's hash seed.",
            "Sort what comes out of sets before writing it, and set PYTHONHASHSEED=0 for the build.",
        ),
        Cause(
            "jobs",
            "The number of jobs or processors got into the artifact.",
            "Fix the number of jobs, and stop the build from writing it down.",
        ),
        Cause(
            "environment",
            "A variable of the environment, or a count of them, got into the artifact.",
            "Read only variables that the project itself sets, under environment in [tool.reprobuild.wheel].",
        ),
        Cause(
            "python-version",
            "Something that differs between two patch releases of Python got into the artifact.",
            "Build with the very Python that the record names, or stop the build from asking for its version.",
        ),
        Cause(
            "random-id",
            "A random identifier or temporary name got into the artifact.",
            "Turn the identifier off or derive it from the input; fix build folders (meson-python: "
            "-Cbuild-dir=NAME) and compiler seeds (-frandom-seed).",
        ),
        Cause(
            "clock",
            "A time got into the artifact: of the build, of a file, or a backend's own default.",
            "Set SOURCE_DATE_EPOCH, no earlier than 1980, and use a backend that obeys it "
            "(poetry-core from 2.0, scikit-build-core with wheel.reproducible=true).",
        ),
        Cause(
            "set-order",
            "The same items come in another order inside a text.",
            "Sort sets and dicts before writing them, and set PYTHONHASHSEED=0 for the build.",
        ),
        Cause(
            "file-order",
            "The same files or lines come in another order.",
            "Sort what glob(), os.listdir() and find return before using it.",
        ),
        Cause(
            "umask",
            "File modes, or something computed from them, follow the umask of the build.",
            "Build under umask 022 from a source export whose modes are 644 and 755.",
        ),
        Cause(
            "line-endings",
            "The texts differ only in CRLF and LF.",
            'Check the source out with `* -text` or `eol=lf` in .gitattributes, and write text with newline="\\n".',
        ),
        Cause(
            "backend-version",
            "Two versions of the build backend made the two wheels.",
            "Pin the build backend exactly: run `reprobuild lock` and build from constraints.txt.",
        ),
        Cause(
            "metadata-version",
            "METADATA is written in two versions of its format.",
            "Pin the build backend exactly: its version decides the Metadata-Version.",
        ),
        Cause(
            "compression",
            "The same content was compressed by another zlib, or at another level.",
            "Build with the same Python and zlib as the record names; zlib-ng and zlib write different bytes.",
        ),
        Cause(
            "zip-tool",
            "Another tool, or another version of it, wrote the zip's own fields.",
            "Pin the build backend, and don't repack the wheel with another tool.",
        ),
        Cause(
            "cuda",
            "Only device code differs, and nvcc puts random names into that.",
            "Call nvcc -c with --frandom-seed=NAME and -objtemp for each file, link separately, "
            "and build at a fixed path.",
        ),
        Cause(
            "debug-info",
            "Only debug sections and symbol tables differ.",
            "Give the compiler -ffile-prefix-map=$PWD=. and -frandom-seed, or strip the file.",
        ),
        Cause(
            "build-id",
            "The linker's build-id is a digest of content that differs.",
            "Mend the other differences of this file; the build-id follows them.",
        ),
    )
}

_HINT_CAUSES = {"path": "build-path", "python": "python-version"}
_KEYWORDS = {
    "jobs": r"job|cpu|core|thread|parallel|proc|worker|-j",
    "hash-seed": r"seed|hash",
    "umask": r"umask|mode|perm",
    "locale": r"locale|lang|lc_",
    "timezone": r"zone|tz",
    "user": r"user|owner|author|\bby\b|login",
    "hostname": r"host|node|machine",
}
_RANDOM = re.compile(
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
    r"|\b[0-9a-f]{32}\b|\b[0-9A-F]{32}\b"
    r"|(?:\.?\btmp|\.mesonpy|\bpip-[a-z-]{1,20}|\bbuild-env|pep517)[-_.]?[A-Za-z0-9_]{4,16}\b"
    r"|\bcc[A-Za-z0-9]{6}\.(?:o|s|c|res|ltrans)|\btmpxft_[0-9a-f]{8}_[0-9a-f]{8}[-_0-9]{0,12}"
)
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_CLOCK_TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?"
_CLOCK = re.compile(
    rf"(?<!\d)\d{{4}}[-/]\d{{2}}[-/]\d{{2}}(?:[T _]{_CLOCK_TIME}{_ZONE})?(?!\d)"
    r"|(?<![\w.])(?:19|20)\d{6}(?:[T_-]?\d{4}(?:\d{2})?Z?)?(?!\w)"
    rf"|(?<!\w)(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{{0,6}},? +)?(?:{_MONTH} +\d{{1,2}}|"
    rf"\d{{1,2}} +{_MONTH})(?:,? +{_CLOCK_TIME})?(?:{_ZONE},? +\d{{4}})?(?: +{_CLOCK_TIME})?{_ZONE}"
    rf"|(?<![\w:])\d{{1,2}}:\d{{2}}:\d{{2}}(?:\.\d{{1,9}})?{_ZONE}(?![\w:])"
    r"|(?<![\w.])1\d{9}(?:\d{3}|\d{6}|\d{9})?(?:\.\d{1,9})?(?!\w)"
)
_URL = re.compile(r"\b[a-z]{2,8}://\S*")
_PATH = re.compile(r"(?:(?<![\w./~-])|(?<=-[ILB]))/(?:[\w.+~@-]+/)+[\w.+~@-]+")
_ITEM = re.compile(r"[^\s,;{}\[\]()]+")

_Step = tuple[str, Callable[[str, str], tuple[str, str]]]


def cause_of(left: str, right: str, hints: Sequence[Hint] = ()) -> str | None:
    """The cause of the difference between two short texts, such as two lines; None when unsure."""
    if left == right:
        return None
    first = None
    a, b = left, right
    for name, step in [*(_hint_step(hint, left, right) for hint in hints), *_STEPS]:
        before = (a, b)
        a, b = step(a, b)
        if first is None and (a, b) != before and _closer(before, (a, b)):
            first = name
    if a == b and first:
        return "timezone" if first == "clock" and zone_apart(left, right, hints) else first
    held = (hint for hint in hints if min(len(hint.left), len(hint.right)) > 3)
    for hint in held:
        if _find(hint, hint.left).search(left) and _find(hint, hint.right).search(right):
            return _HINT_CAUSES.get(hint.variable, hint.variable)
    return "set-order" if same_items(left, right) else None


def _closer(before: tuple[str, str], after: tuple[str, str]) -> bool:
    # A step that masks the same token on both sides explains nothing.
    gone = [Counter(_ITEM.findall(text)) for text in before]
    left = [Counter(_ITEM.findall(text)) for text in after]
    return sum(((gone[0] - gone[1]) + (gone[1] - gone[0])).values()) > sum(
        ((left[0] - left[1]) + (left[1] - left[0])).values()
    )


def _find(hint: Hint, value: str) -> re.Pattern[str]:
    if hint.variable in ("path", "home"):
        return re.compile(re.escape(value) + r"(?![\w-])")
    return re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")


def _hint_step(hint: Hint, left: str, right: str) -> _Step:
    name = _HINT_CAUSES.get(hint.variable, hint.variable)

    def step(a: str, b: str) -> tuple[str, str]:
        if not hint.left or not hint.right or hint.left == hint.right:
            return a, b
        if min(len(hint.left), len(hint.right)) < 3 and (left, right) != (hint.left, hint.right):
            # One or two characters are found everywhere: something must say what they mean.
            keyword = re.compile(_KEYWORDS.get(hint.variable, r"(?!)"), re.IGNORECASE)
            if not (keyword.search(left) and keyword.search(right)):
                return a, b
        return _find(hint, hint.left).sub("\0", a), _find(hint, hint.right).sub("\0", b)

    return name, step


def _mask(pattern: re.Pattern[str]) -> Callable[[str, str], tuple[str, str]]:
    return lambda a, b: (pattern.sub("\1", a), pattern.sub("\1", b))


def _mask_paths(a: str, b: str) -> tuple[str, str]:
    """Mask absolute paths where both texts have them and each pair ends alike."""
    a, b = _URL.sub(_without_slashes, a), _URL.sub(_without_slashes, b)
    left, right = _PATH.findall(a), _PATH.findall(b)
    if len(left) != len(right) or any(
        x.rpartition("/")[2] != y.rpartition("/")[2] for x, y in zip(left, right, strict=True)
    ):
        return a, b
    return _PATH.sub("\2", a), _PATH.sub("\2", b)


def _without_slashes(match: re.Match[str]) -> str:
    return match.group().replace("/", "\3")


_STEPS: list[_Step] = [
    ("random-id", _mask(_RANDOM)),
    ("clock", _mask(_CLOCK)),
    ("build-path", _mask_paths),
]


def zone_apart(left: str, right: str, hints: Sequence[Hint]) -> bool:
    """Whether two texts hold times a whole number of quarters apart, and the zones are known to."""
    if not any(hint.variable == "timezone" for hint in hints):
        return False
    times = [_first_time(text) for text in (left, right)]
    if times[0] is None or times[1] is None:
        return False
    apart = abs((times[0] - times[1]).total_seconds())
    return 0 < apart <= 26 * 3600 and apart % 900 == 0


def _first_time(text: str) -> datetime | None:
    match = re.search(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}", text)
    try:
        return datetime.fromisoformat(match.group()) if match else None
    except ValueError:
        return None


def same_items(left: str, right: str) -> bool:
    """Whether two texts list the same items in another order: a literal, or a line of words."""
    for split in (_listed, _words):
        a, b = split(left), split(right)
        if a and b and a != b:
            return len(a) > 1 and Counter(a) == Counter(b)
    return False


def _listed(text: str) -> list[str]:
    # Whole items, not words: swapping the values of two keys isn't another order.
    if not re.search(r"[,;{\[(]", text):
        return []
    return [item for part in re.split(r"[,;{}\[\]()\n]", text) if (item := part.strip())]


def _words(text: str) -> list[str]:
    words = text.split()
    plain = all(re.fullmatch(r"[^\W\d][\w.:/-]*", word) for word in words)
    return words if plain else []


def mode_cause(left: int, right: int) -> str | None:
    """``umask`` when two modes differ only in bits for group and others; the owner's are equal."""
    return "umask" if left and right and not (left ^ right) & ~0o077 else None
