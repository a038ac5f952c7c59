"""What `reprobuild lint` knows to make an image come out otherwise the next time: why, and what helps.

Whether a cause and its remedy are what they are said to be is tried in tests/dockerfiles, with a real BuildKit.
"""

from dataclasses import dataclass
from typing import Literal

#: ``error``: two builds differ by it, today or once something elsewhere has changed. ``warning``: they may.
Severity = Literal["error", "warning"]
_PAGE = "docs/dockerfile-causes.md"


@dataclass(frozen=True, slots=True)
class Rule:
    """A known cause of images that don't come out the same twice.

    Attributes:
        name: what a waiver calls it.
        why: what differs, and when.
        remedy: what to write instead.
    """

    name: str
    severity: Severity
    why: str
    remedy: str

    @property
    def link(self) -> str:
        """Where the documentation says more, within the project."""
        return f"{_PAGE}#{self.name}"


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "unpinned-image",
            "error",
            "A tag names another image whenever its owner pushes one.",
            "Put the digest behind the tag, NAME:TAG@sha256:…; `reprobuild lock` does, and --check shows if it moved.",
        ),
        Rule(
            "latest-tag",
            "error",
            "`latest`, which also stands where there is no tag, names another image with every release.",
            "Name a version and its digest, NAME:TAG@sha256:…; `reprobuild lock` puts the digest there.",
        ),
        Rule(
            "unpinned-frontend",
            "error",
            "`# syntax=` fetches the program that reads the Dockerfile, and a tag of it moves.",
            "Leave the line out, which takes the engine's own frontend, or put @sha256:… behind the tag.",
        ),
        Rule(
            "moving-archive",
            "error",
            "A distribution's archive offers other versions from day to day, and drops the old ones.",
            "Install from reprobuild's apt lock (docs/apt.md), from files that you keep, or from a snapshot with its "
            "date in the address.",
        ),
        Rule(
            "pip-unhashed",
            "error",
            "Without hashes pip takes what the index offers at that time, of dependencies too.",
            "`pip install --require-hashes -r requirements.txt`, which `reprobuild lock` writes.",
        ),
        Rule(
            "uv-unlocked",
            "error",
            "uv resolves again, and takes what the index offers at that time.",
            "`uv sync --locked` (or --frozen), or `uv pip install --require-hashes -r requirements.txt`.",
        ),
        Rule(
            "conda-unlocked",
            "error",
            "conda solves again, and takes what the channels offer at that time.",
            "Install an explicit lock: conda-lock's, or `conda list --explicit --sha256`, with `--file NAME.lock`.",
        ),
        Rule(
            "npm-unlocked",
            "error",
            "npm, yarn and pnpm may take newer versions than their lock names; `-g` has no lock at all.",
            "`npm ci`, `yarn install --immutable` (or --frozen-lockfile), `pnpm install --frozen-lockfile`.",
        ),
        Rule(
            "go-moving",
            "error",
            "`@latest`, a branch, or no version name another module as soon as there is a newer one.",
            "`go install MODULE@vX.Y.Z`: the checksum database vouches for what that is.",
        ),
        Rule(
            "cargo-unlocked",
            "error",
            "Without --locked cargo leaves Cargo.lock aside and resolves again; without a version it takes the newest.",
            "`cargo install --locked NAME --version X.Y.Z`; of a git repository also --rev.",
        ),
        Rule(
            "gem-unlocked",
            "error",
            "gem takes the newest versions, at least of the dependencies.",
            "`bundle install` with a committed Gemfile.lock and BUNDLE_FROZEN=1, or files that you keep with --local.",
        ),
        Rule(
            "apt-lists",
            "error",
            "`apt-get update` leaves the archive's lists behind, which differ from day to day.",
            "In the same RUN: `rm -rf /var/lib/apt/lists/*`, or a cache or tmpfs mount there.",
        ),
        Rule(
            "apt-cache",
            "warning",
            "apt leaves packages and an index in /var/cache/apt, where the base's own cleaning was turned off.",
            "In the same RUN: `apt-get clean`, or a cache or tmpfs mount there.",
        ),
        Rule(
            "apt-logs",
            "error",
            "dpkg and apt write times into /var/log/dpkg.log, /var/log/apt and /var/log/alternatives.log.",
            "In the same RUN: `rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log`.",
        ),
        Rule(
            "ldconfig-cache",
            "error",
            "ldconfig, which also runs after a library was installed, notes inode numbers and times of libraries.",
            "In the same RUN: `rm -f /var/cache/ldconfig/aux-cache`; only ldconfig itself reads it.",
        ),
        Rule(
            "shadow-date",
            "error",
            "/etc/shadow holds the day of the last change of each password.",
            "For useradd: `ARG SOURCE_DATE_EPOCH` before it. Else, in the same RUN, last: `chage -d 0 NAME`.",
        ),
        Rule(
            "password-salt",
            "error",
            "chpasswd, passwd and `openssl passwd` salt a hash by chance; the first two note the day, too.",
            "`usermod -p 'HASH' NAME` with a hash made once, and `chage -d 0 NAME`; better: no password in an image.",
        ),
        Rule(
            "machine-id",
            "error",
            "systemd and dbus make an identity by chance when they are installed.",
            "In the same RUN: `rm -f /var/lib/dbus/machine-id && : > /etc/machine-id`; the first start then makes it.",
        ),
        Rule(
            "bytecode",
            "error",
            "A .pyc holds the time of its source, which is that of the installation; the image's times are set later.",
            "`ARG SOURCE_DATE_EPOCH` before it (then .pyc files hold hashes), or `pip install --no-compile`; with "
            "--target always the latter, since a folder made by chance gets into them.",
        ),
        Rule(
            "uv-installer-metadata",
            "error",
            "Of folders and files that it installs uv notes the time in uv_cache.json.",
            "`ENV UV_NO_INSTALLER_METADATA=1`.",
        ),
        Rule(
            "download-cache",
            "error",
            "pip, uv and npm leave caches and logs in the home folder, with times and names made by chance.",
            "--no-cache-dir, PIP_NO_CACHE_DIR=1, UV_NO_CACHE=1, or `RUN --mount=type=cache,target=/root/.cache`; "
            "after npm `rm -rf ~/.npm`.",
        ),
        Rule(
            "add-unverified",
            "error",
            "What is at an address changes, and ADD takes what is there.",
            "`ADD --checksum=sha256:… ADDRESS TARGET`.",
        ),
        Rule(
            "git-moving",
            "error",
            "A branch moves, a tag can; and what `git clone` leaves in .git holds times.",
            "`git checkout` a whole commit and remove .git in the same RUN, or `ADD ADDRESS#COMMIT TARGET`.",
        ),
        Rule(
            "copy-git",
            "error",
            ".git differs between two clones of one commit: its index, its packs, its logs.",
            "Write `.git` into .dockerignore; hand over what you need from it as an ARG.",
        ),
        Rule(
            "curl-pipe-shell",
            "error",
            "A script from the network is run, whatever it is today, and it fetches what it likes.",
            "Download it, hold it against a hash (`sha256sum -c`), then run it; or copy it into the project.",
        ),
        Rule(
            "download-unverified",
            "error",
            "What is at an address changes, and nothing holds this download against a hash.",
            "In the same RUN: `echo 'HASH  FILE' | sha256sum -c -`, or `ADD --checksum=sha256:… ADDRESS TARGET`.",
        ),
        Rule(
            "clock-in-file",
            "error",
            "The time of the build gets into a file.",
            '`ARG SOURCE_DATE_EPOCH`, and `date -u -d "@$SOURCE_DATE_EPOCH"` in place of `date`.',
        ),
        Rule(
            "random-in-file",
            "error",
            "Something made by chance gets into a file, or into its name.",
            "Take a fixed value, make it when the container starts, or remove it in the same RUN.",
        ),
        Rule(
            "machine-in-file",
            "error",
            "The name, the kernel or the processors of the machine that builds get into a file.",
            "Write a fixed value.",
        ),
        Rule(
            "missing-epoch",
            "warning",
            "BuildKit gives SOURCE_DATE_EPOCH to a RUN only where the stage declares it; without it Python, useradd, "
            "compilers and others take the clock's or the files' own time.",
            "`ARG SOURCE_DATE_EPOCH` before the first RUN of the stage.",
        ),
        Rule(
            "archive-times",
            "error",
            "An archive made in RUN holds the times of its files, and a tar their order on the disk; rewrite-timestamp "
            "doesn't reach into files.",
            'tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner; gzip -n; '
            'before zip -X: `find DIR -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +`.',
        ),
        Rule(
            "generated-key",
            "error",
            "A key is made by chance; and all containers of the image share it.",
            "Make it when the container starts, or mount it as a secret.",
        ),
        Rule(
            "bad-waiver",
            "error",
            "A waiver names a rule and a reason: `# reprobuild: allow RULE REASON`.",
            "Name a rule of `reprobuild lint --list`, and say why it may stay.",
        ),
        Rule(
            "unused-waiver",
            "warning",
            "A waiver that waives nothing hides what is found there later.",
            "Take it away.",
        ),
    )
}
