"""What can be different about the surroundings of a second build, and the choice among it."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reprobuild import process
from reprobuild.clock import why_not as why_no_clock
from reprobuild.errors import BadInput, ReprobuildError
from reprobuild.sandbox import Guarantees, Surroundings

#: Locales that spell numbers, dates or letters unlike C, in the order in which they are looked for.
_OTHER_LOCALES = ("tr_TR.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8", "C")
#: Causes that a comparison finds by its own evidence, and the variations that they speak of.
_SUSPECTS = {"set-order": ("hash-seed", "directory-order"), "clock": ("clock", "timezone"), "compression": ("python",)}


@dataclass(frozen=True, slots=True)
class Variation:
    """One thing about a build's surroundings that may not matter.

    Attributes:
        name: as users write it.
        change: from the first build's surroundings to others.
        cause: the key in ``compare.CAUSES`` of what it means when this variation changes the wheel.
        held_by: the guarantee without which the change would have no effect; empty for none.
        value: what a build can see of it, to be looked for in what differs.
        why_not: why this machine can't vary it; empty when it can.
    """

    name: str
    change: Callable[[Surroundings], Surroundings]
    cause: str
    held_by: str = ""
    value: Callable[[Surroundings], str] = lambda _: ""
    why_not: Callable[[], str] = lambda: ""


def _other_root(around: Surroundings) -> Surroundings:
    # Right below /tmp, whose sticky bit keeps others from putting their own folder in its place.
    return replace(around, root="/tmp/made-again-in-another-folder")  # noqa: S108 - see Surroundings.root


def _other_locale(around: Surroundings) -> Surroundings:
    here = _locales()
    return replace(around, locale=next((name for name in _OTHER_LOCALES if name.lower() in here), "C"))


@functools.cache
def _locales() -> frozenset[str]:
    # Not from /usr/lib/locale: some systems keep all of them in one archive there.
    try:
        listed = process.run(["locale", "-a"], env=process.tool_environment(), timeout=20).stdout
    except ReprobuildError:
        return frozenset()
    return frozenset(listed.decode(errors="replace").lower().replace(".utf8", ".utf-8").split())


def _other_jobs(around: Surroundings) -> Surroundings:
    return replace(around, jobs=1 if around.job_count > 1 else 2)


#: Another patch release is no matter of the surroundings: whoever makes the wheel again takes another interpreter.
PYTHON = "python"

#: Every variation, in the order in which it is reported. docs/variations.md is this table; a test compares the two.
VARIATIONS: dict[str, Variation] = {
    each.name: each
    for each in (
        Variation("path", _other_root, "build-path", value=lambda around: around.root),
        Variation("umask", partial(replace, umask=0o077), "umask"),
        Variation("timezone", partial(replace, timezone="<-1130>+11:30"), "timezone", value=lambda a: a.timezone),
        Variation("locale", _other_locale, "locale", value=lambda around: around.locale),
        Variation("hash-seed", partial(replace, hash_seed="20011"), "hash-seed", value=lambda a: a.hash_seed),
        Variation("home", partial(replace, home="/tmp/a-second-home"), "home", value=lambda a: a.home),  # noqa: S108 - as root
        Variation(
            "hostname", partial(replace, hostname="elsewhere"), "hostname", "fixed_hostname", lambda a: a.hostname
        ),
        Variation("user", partial(replace, user="rebuilder", uid=1001), "user", value=lambda around: around.user),
        Variation("jobs", _other_jobs, "jobs", value=lambda around: str(around.job_count)),
        Variation(
            "directory-order", partial(replace, directory_order="reversed"), "file-order", "fixed_directory_order"
        ),
        Variation("clock", partial(replace, clock="shifted"), "clock", why_not=why_no_clock),
        Variation("noise", partial(replace, noise="Geräusch"), "environment"),
        Variation(PYTHON, lambda around: around, "python-version"),
    )
}

#: What is varied when nobody says otherwise: all but Python, which is an input that the record names by its digest.
USUAL_NAMES = tuple(name for name in VARIATIONS if name != PYTHON)


def choose(text: str) -> tuple[str, ...]:
    """The variations that ``all``, ``none`` or some names with commas between them ask for, in their usual order.

    Raises:
        BadInput: it names something else.
    """
    asked = [part.strip() for part in text.split(",")]
    if asked == ["all"]:
        return tuple(VARIATIONS)
    if asked == ["none"]:
        return ()
    for name in asked:
        if name not in VARIATIONS:
            raise BadInput(
                f"{name!r} is no variation.{_near(name)}", f"There are: {', '.join(VARIATIONS)}; or all, none."
            )
    return tuple(name for name in VARIATIONS if name in asked)


def _near(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only after a typing mistake

    if name in ("all", "none"):
        return f" {name!r} stands alone."
    near = get_close_matches(name.lower().replace("_", "-"), VARIATIONS, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def impossible(names: Iterable[str], guarantees: Guarantees) -> dict[str, str]:
    """Those of some variations that would have no effect here, each with the reason."""
    found = {}
    for name in names:
        each = VARIATIONS[name]
        if each.held_by and not getattr(guarantees, each.held_by):
            found[name] = f"the sandbox kind {guarantees.kind} can't"
        elif why := each.why_not():
            found[name] = why
    return found


def suspects(causes: Sequence[str]) -> tuple[str, ...]:
    """The variations that the named causes of a difference speak of."""
    named = {name for cause in causes for name in _SUSPECTS.get(cause, ())}
    return tuple(name for name, each in VARIATIONS.items() if each.cause in causes or name in named)
