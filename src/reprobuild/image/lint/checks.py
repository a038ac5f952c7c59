"""What is looked for in a RUN: a function for each group of rules, which yields what it found."""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from reprobuild.image.lint.run import COMMIT, EPOCH, Found, Run, assigned, context_text, operands, text_of
from reprobuild.image.lint.shell import Command

_DATED = re.compile(
    r"/\d{8}T\d{6}Z|snapshot\.(debian|ubuntu)\.|APT::Snapshot|--snapshot|\bfile:/|\bcopy:/|repro-sources-list"
)

# --- packages --------------------------------------------------------------------------------------------------------

_INSTALLING: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("apt-get", "apt", "aptitude"),
        ("install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "satisfy", "reinstall"),
    ),
    "apk": ("add", "upgrade"),
    **dict.fromkeys(
        ("yum", "dnf", "microdnf", "tdnf"), ("install", "update", "upgrade", "groupinstall", "builddep", "localinstall")
    ),
    "zypper": ("install", "in", "update", "up", "dup"),
}
_APT = ("apt-get", "apt", "aptitude")
_APT_VALUED = "-t --target-release -o --option -c --config-file"
_LOCAL = re.compile(r"\.{0,2}/|file:|copy:")


def _does(command: Command, programs: tuple[str, ...], verbs: tuple[str, ...]) -> bool:
    return command.program in programs and any(word in verbs for word in command.words[1:])


def _archives(run: Run) -> Iterator[Found]:
    for each in run.commands:
        verbs = _INSTALLING.get(each.program, ())
        pacman = each.program == "pacman" and any(re.match(r"-S[a-z]*", word) for word in each.words[1:])
        if not (pacman or any(word in verbs for word in each.words[1:])):
            continue
        wanted = [word for word in operands(each, _APT_VALUED, 1) if word not in verbs]
        local = bool(wanted) and all(_LOCAL.match(run.expand(word)) or "*" in word for word in wanted)
        from_lock = any(mount.get("from") == "apt" for mount in run.mounts) or each.has("--no-download")
        if not (local or from_lock or _DATED.search(run.expand(run.sources))):
            yield "moving-archive", each.line, text_of(each)


def _pip(command: Command) -> tuple[str, ...]:
    """The arguments of pip in ``pip …`` and ``python -m pip …``; empty for another program."""
    if re.fullmatch(r"pip[\d.]*", command.program):
        return command.words[1:]
    if re.fullmatch(r"(python|pypy)[\d.]*", command.program) and "pip" in command.words[1:]:
        at = command.words.index("pip")
        return command.words[at + 1 :] if command.words[at - 1] == "-m" else ()
    return ()


_PIP_VALUED = (
    "-r --requirement -c --constraint -i --index-url --extra-index-url -f --find-links -t --target --prefix --root "
    "--trusted-host --timeout --retries --progress-bar --platform --python-version --cache-dir -p --python "
    "--default-timeout --config-settings -C --global-option --upgrade-strategy "
    "--no-binary --only-binary --index --torch-backend --abi --proxy"
)


def _is_hashed(run: Run, command: Command) -> bool:
    """Whether an install of pip's, or of uv's `pip` commands, takes only what has a hash, or what is at hand."""
    words = command.words
    if command.has("--require-hashes", "--no-index", "--dry-run") or run.on(
        "PIP_REQUIRE_HASHES", "UV_REQUIRE_HASHES", "PIP_NO_INDEX"
    ):
        return True
    wanted = operands(command, f"{_PIP_VALUED} -e --editable", words.index("install") + 1 if "install" in words else 3)
    editable = [after for word, after in pairwise(words) if word in ("-e", "--editable")]
    files = [after for word, after in pairwise(words) if word in ("-r", "--requirement")]
    if "sync" in words:
        files, wanted = wanted, []
    if any("--hash=" in context_text(run.folders, run.expand(file)) for file in files):
        return not wanted and not editable  # pip then wants one for everything (its manual: hash-checking mode)
    if files or not (wanted or editable):
        return False
    local = all(_is_local(run.expand(word)) for word in (*wanted, *editable))
    return (local and command.has("--no-deps")) or all("#sha256=" in word for word in wanted)


def _is_local(word: str) -> bool:
    return word.startswith((".", "/", "file:")) or word.endswith((".whl", ".tar.gz"))


def _python(run: Run) -> Iterator[Found]:
    for each in run.commands:
        words = each.words
        pip = _pip(each)
        if ("install" in pip and not _is_hashed(run, each)) or (each.program == "pipx" and "install" in words):
            yield "pip-unhashed", each.line, text_of(each)
        elif each.program == "uv" and _uv(run, each):
            yield "uv-unlocked", each.line, text_of(each)


def _uv(run: Run, each: Command) -> bool:
    verb = operands(each, "--directory --project", 1)[:2]
    if verb in (["pip", "install"], ["pip", "sync"]):
        return not _is_hashed(run, each)
    locked = each.has("--locked", "--frozen") or run.on("UV_LOCKED", "UV_FROZEN")
    return (verb[:1] in (["sync"], ["run"]) and not locked and not each.has("--no-project", "--no-sync")) or (
        verb == ["tool", "install"] or verb[:1] == ["add"]
    )


def _conda(run: Run) -> Iterator[Found]:
    for each in run.commands:
        if not _does(each, ("conda", "mamba", "micromamba"), ("install", "create", "update", "env")):
            continue
        solves = any(word in ("install", "update", "create") for word in each.words[1:])
        files = [word for word in each.words if re.search(r"lock|explicit", word)]
        if solves and not files and not each.has("--offline", "--clone"):
            yield "conda-unlocked", each.line, text_of(each)


def _node(run: Run) -> Iterator[Found]:
    for each in run.commands:
        verbs = [word for word in each.words[1:] if not word.startswith("-")][:2]
        frozen = each.has("--frozen-lockfile", "--immutable", "--offline")
        if each.program == "npm":
            loose = verbs[:1] in (["install"], ["i"], ["add"], ["update"]) and not each.has("--dry-run")
        elif each.program == "yarn":
            loose = (verbs[:1] in ([], ["install"]) and not frozen and not each.has("--version")) or (
                verbs[:1] == ["add"] or verbs == ["global", "add"]
            )
        else:
            loose = each.program == "pnpm" and (
                (verbs[:1] in (["install"], ["i"]) and not frozen) or verbs[:1] == ["add"]
            )
        if loose:
            yield "npm-unlocked", each.line, text_of(each)


def _others(run: Run) -> Iterator[Found]:
    for each in run.commands:
        words = each.words
        if each.program == "go" and words[1:2] in (("install",), ("get",)):
            modules = [word for word in operands(each) if not word.startswith(".") and "." in word.partition("/")[0]]
            if any(not re.search(r"@(v\d|[0-9a-f]{12,}|\$)", word) for word in modules):
                yield "go-moving", each.line, text_of(each)
        elif each.program == "cargo" and "install" in words:
            exact = each.has("--version", "--vers", "--path", "--rev") or any(
                re.search(r"\w@\d", word) for word in words
            )
            if not (each.has("--locked", "--frozen") and exact):
                yield "cargo-unlocked", each.line, text_of(each)
        elif each.program == "gem" and words[1:2] in (("install",), ("update",)) and not each.has("--local", "-l"):
            yield "gem-unlocked", each.line, text_of(each)


# --- what is left behind ---------------------------------------------------------------------------------------------

#: Docker's Debian and Ubuntu, and what starts from them, clean apt's cache by themselves until somebody turns that off.
_KEEPS_PACKAGES = re.compile(r"docker-clean|Keep-Downloaded-Packages|-o Dir::Cache")


def _apt_leavings(run: Run) -> Iterator[Found]:
    for number, each in enumerate(run.commands):
        installs = _does(each, _APT, (*_INSTALLING["apt-get"], "remove", "purge", "autoremove"))
        updates = _does(each, _APT, ("update",))
        unpacks = each.program == "dpkg" and each.has("-i", "--install", "--configure", "-P", "--purge", "-r")
        left = [
            (updates, "apt-lists", ("/var/lib/apt/lists/x",)),
            (installs, "apt-logs", ("/var/log/apt/history.log", "/var/log/dpkg.log")),
            (unpacks, "apt-logs", ("/var/log/dpkg.log",)),
            (installs or unpacks or each.program == "ldconfig", "ldconfig-cache", ("/var/cache/ldconfig/aux-cache",)),
            (
                (updates or installs) and _KEEPS_PACKAGES.search(run.sources),
                "apt-cache",
                ("/var/cache/apt/pkgcache.bin",),
            ),
        ]
        for does, rule, paths in left:
            if does and any(run.keeps(path, number + 1) for path in paths):
                yield rule, each.line, text_of(each)


def _accounts(run: Run) -> Iterator[Found]:
    aged = any(each.program == "chage" for each in run.commands)
    for number, each in enumerate(run.commands):
        salted = each.program == "openssl" and each.words[1:2] == ("passwd",) and not each.has("-salt")
        if not salted and each.program not in ("useradd", "adduser", "chpasswd", "passwd", "newusers"):
            continue
        if not run.keeps("/etc/shadow", number + 1):
            continue
        busybox = each.program == "adduser" and each.has("-D", "-S", "-H") and "--" not in text_of(each)
        if (
            salted
            or each.program in ("chpasswd", "newusers")
            or (each.program == "passwd" and not each.has("-l", "-d", "-u", "-S", "--lock", "--delete"))
        ):
            yield "password-salt", each.line, text_of(each)
        elif not aged and (busybox or not run.variables.get(EPOCH)):
            yield "shadow-date", each.line, text_of(each)


_IDENTIFIED = ("systemd", "systemd-sysv", "dbus", "dbus-x11", "dbus-user-session", "libpam-systemd", "init")


def _identity(run: Run) -> Iterator[Found]:
    for number, each in enumerate(run.commands):
        installs = _does(each, (*_APT, "yum", "dnf", "apk"), ("install", "add"))
        made = each.program in ("systemd-machine-id-setup", "dbus-uuidgen") and not each.has("--get", "--print")
        if made or (installs and any(_named(word) in _IDENTIFIED for word in each.words)):
            paths = ("/etc/machine-id", "/var/lib/dbus/machine-id")
            gone = [not run.keeps(path, number + 1) for path in paths]
            if not any(gone):
                yield "machine-id", each.line, text_of(each)


def _named(word: str) -> str:
    return re.split(r"[=_:]", word.rpartition("/")[2])[0]


def _bytecode(run: Run) -> Iterator[Found]:
    for each in run.commands:
        words = {*each.words}
        pip = "install" in _pip(each) and not each.has("--no-compile", "--dry-run") and not run.on("PIP_NO_COMPILE")
        # With --target pip compiles in a folder whose name is made by chance, and the name gets into the file.
        elsewhere = pip and each.has("--target", "-t")
        compiles = words & {"compileall", "py_compile"} and not words & {"unchecked-hash", "checked-hash"}
        # Both install a pip, which compiles itself.
        seeds = "ensurepip" in words or ("venv" in words and not each.has("--without-pip", "-h", "--help"))
        seeds = seeds and bool(re.fullmatch(r"(python|pypy)[\d.]*", each.program))
        asked = each.has("--compile-bytecode", "--compile") or run.on("UV_COMPILE_BYTECODE")
        if elsewhere or ((pip or compiles or seeds or (_uv_verb(each) and asked)) and not run.variables.get(EPOCH)):
            yield "bytecode", each.line, text_of(each)


def _uv_verb(each: Command) -> str:
    """What uv is to do with an environment: ``sync``, ``pip install``, ``pip sync``; empty for all else."""
    verb = " ".join(operands(each, "--directory --project", 1)[:2]) if each.program == "uv" else ""
    return "sync" if verb.startswith("sync") else verb if verb in ("pip install", "pip sync") else ""


def _installs_local(each: Command) -> bool:
    """Whether uv installs a folder or a file of this machine, as against a package of an index."""
    if _uv_verb(each) == "sync":
        return not each.has("--no-install-project", "--no-install-workspace", "--no-install-local")
    wanted = operands(each, _PIP_VALUED, 3)
    return _uv_verb(each) == "pip install" and (each.has("-e", "--editable") or any(map(_is_local, wanted)))


def _caches(run: Run) -> Iterator[Found]:
    for number, each in enumerate(run.commands):
        pip = bool({"install", "download", "wheel"} & {*_pip(each)})
        if _installs_local(each) and not run.on("UV_NO_INSTALLER_METADATA"):
            yield "uv-installer-metadata", each.line, text_of(each)
        off = each.has("--no-cache-dir", "--no-cache", "--no-index") or (each.program == "uv" and each.has("-n"))
        kept = ""
        if pip and not off and not run.on("PIP_NO_CACHE_DIR"):
            kept = run.variables.get("PIP_CACHE_DIR") or "/root/.cache/pip"
        elif _uv_verb(each) and not off and not run.on("UV_NO_CACHE"):
            kept = run.variables.get("UV_CACHE_DIR") or "/root/.cache/uv"
        elif each.program == "npm" and any(word in ("ci", "install", "i") for word in each.words[1:]):
            kept = run.variables.get("npm_config_cache") or run.variables.get("NPM_CONFIG_CACHE") or "/root/.npm"
        elsewhere = any(re.search(r"/\.(cache|npm)\b", mount.get("target", "")) for mount in run.mounts)
        if kept and not elsewhere and run.keeps(kept, number + 1):
            yield "download-cache", each.line, text_of(each)


# --- what comes from elsewhere, or from chance -----------------------------------------------------------------------

_INTERPRETERS = re.compile(r"(ba|da|a|z|k)?sh|python[\d.]*|perl|ruby|node|php")
_UNPACKERS = ("tar", "bsdtar", "unzip", "cpio", "gpg", "apt-key", "dpkg")
_CHECKS_A_HASH = re.compile(r"(sha(1|224|256|384|512)|md5|b2)sum|shasum|cosign|minisign|gpgv|rhash|b3sum")


def _downloads(run: Run) -> Iterator[Found]:
    verified = any(
        _CHECKS_A_HASH.fullmatch(each.program)
        or (each.program in ("gpg", "gpg2") and each.has("--verify"))
        or (each.program == "openssl" and re.search(r"\b(dgst|sha\d+|blake2\w+)\b", text_of(each)))
        for each in run.commands
    )
    for number, each in enumerate(run.commands):
        if each.program not in ("curl", "wget", "aria2c") or each.has("--version", "--help"):
            continue
        if any(re.match(r"(https?://)?localhost\b", word) for word in each.words[1:]):
            continue
        fed = run.commands[each.feeds] if each.feeds is not None else None
        if fed and (_INTERPRETERS.fullmatch(fed.program) or fed.program in ("eval", "source", ".")):
            yield "curl-pipe-shell", each.line, f"{text_of(each)} | {fed.program}"
        elif fed and fed.words and fed.words[0].startswith(("$(", "`")):  # what it prints is run
            yield "curl-pipe-shell", each.line, text_of(each)
        elif not verified and _saves(run, number, each, fed):
            yield "download-unverified", each.line, text_of(each)


def _saves(run: Run, number: int, each: Command, fed: Command | None) -> bool:
    if each.program == "curl":
        to_file = (
            each.has("-o", "-O", "--output", "--remote-name", "--remote-name-all") and "/dev/null" not in each.words
        )
        quiet = each.has("-I", "--head")
    else:
        to_file = not (
            each.has("--spider")
            or {"-O-", "-qO-", "-", "/dev/null"} & {*each.words}
            or any(re.fullmatch(r"-[a-zA-Z]*O-", word) for word in each.words)
        )
        quiet = each.has("--spider")
    if quiet:
        return False
    return to_file or run.reaches(number) or bool(fed and fed.program in _UNPACKERS)


def _clones(run: Run) -> Iterator[Found]:
    pinned = False
    for each in run.commands:
        if each.program == "git" and {"checkout", "reset", "fetch", "switch", "--revision"} & {*each.words}:
            pinned |= any(_is_commit(run, word) for word in each.words[1:])
    for each in run.commands:
        if (
            each.program == "git"
            and "clone" in each.words[1:]
            and not (pinned or any(word.startswith("--revision=") for word in each.words))
        ):
            yield "git-moving", each.line, text_of(each)


def _is_commit(run: Run, word: str) -> bool:
    """A whole commit; or a variable of which only `--build-arg` says what it is."""
    value = run.expand(word).strip("\"'")
    return bool(COMMIT.fullmatch(value)) or (value.startswith("$") and not value.startswith("$("))


_CLOCKS = frozenset({"EPOCHSECONDS", "EPOCHREALTIME"})
_CHANCE = frozenset({"RANDOM", "SRANDOM"})
_MACHINE = frozenset({"HOSTNAME", "HOSTTYPE"})


def _values(run: Run) -> Iterator[Found]:
    for number, each in enumerate(run.commands):
        rule = _made_up(each)
        if rule and run.reaches(number):
            yield rule, each.line, text_of(each)
        for names, by in ((_CLOCKS, "clock-in-file"), (_CHANCE, "random-in-file"), (_MACHINE, "machine-in-file")):
            if each.variables & names and EPOCH not in each.variables and run.reaches(number, given=True):
                yield by, each.line, text_of(each) or " ".join("=".join(pair) for pair in each.assignments)


def _made_up(each: Command) -> str:
    """The rule about what a program prints; empty for a steady one."""
    words = each.words
    if each.program == "date":
        steady = each.has("-d", "--date", "-r", "--reference", "-s") or EPOCH in each.variables
        return "" if steady or each.has("--version") else "clock-in-file"
    if each.program in ("uuidgen", "uuid", "pwgen", "mkpasswd", "mcookie", "shuf", "makepasswd") or (
        each.program == "openssl" and "rand" in words
    ):
        return "random-in-file"
    if any(re.fullmatch(r"(if=)?/dev/u?random|/proc/sys/kernel/random/.*", word) for word in words) or any(
        re.match(r"/dev/u?random", one.target) for one in each.redirects
    ):
        return "random-in-file"
    if (
        each.program == "hostname"
        or each.program in ("nproc", "lscpu")
        or (each.program == "uname" and each.has("-a", "-n", "-r", "-v", "--all", "--nodename", "--kernel-release"))
    ):
        return "machine-in-file" if each.program != "nproc" else ""
    return ""


_TEMPORARY = "/tmp/x"  # noqa: S108 - a name that stands for any there, and nothing is opened


def _temporary(run: Run) -> Iterator[Found]:
    """Files of mktemp that are still there at the end, under a name made by chance."""
    removed = {
        name for each in run.commands if each.program in ("rm", "trap", "mv", "rmdir") for name in each.variables
    }
    removed |= {
        name
        for each in run.commands
        if each.program == "trap"
        for word in each.words
        for name in re.findall(r"\$\{?(\w+)", word)
    }
    for number, each in enumerate(run.commands):
        if each.program != "mktemp" or each.has("-u", "--dry-run"):
            continue
        holder = run.commands[each.feeds] if each.feeds is not None else None
        names = {name for name, _ in assigned(holder)} if holder else set()
        if not names & removed and run.keeps(_TEMPORARY, number + 1):
            yield "random-in-file", each.line, text_of(each)


def _made_archives(run: Run) -> Iterator[Found]:
    touched = any(each.program == "touch" and each.has("-d", "--date", "-t", "-r") for each in run.commands) or any(
        each.program == "find" and "touch" in each.words for each in run.commands
    )
    cleaned = any(each.program in ("strip-nondeterminism", "add-determinism") for each in run.commands)
    for each in run.commands:
        if cleaned:
            return
        fed = run.commands[each.feeds].program if each.feeds is not None else ""
        if each.program in ("tar", "bsdtar", "gtar") and _creates(each) and fed not in ("tar", "bsdtar", "ssh"):
            steady = each.has("--mtime") and each.has("--sort")
        elif each.program in ("zip", "jar") and len(each.words) > 2:
            steady = each.program == "zip" and (touched and (each.has("-X", "--no-extra") or each.has("-d")))
            steady |= each.program == "jar" and (each.has("--date") or not re.search("c", each.words[1]))
        elif each.program in ("gzip", "pigz"):
            files = [word for word in each.words[1:] if not word.startswith("-")]
            steady = not files or each.has("-n", "--no-name", "-d", "--decompress", "-t", "-l", "--test")
        else:
            continue
        if not steady:
            yield "archive-times", each.line, text_of(each)


def _creates(each: Command) -> bool:
    first = each.words[1] if len(each.words) > 1 else ""
    bundled = bool(re.fullmatch(r"-?[a-zA-Z]*c[a-zA-Z]*", first)) and not re.search(r"[xtd]", first.lstrip("-"))
    return bundled or "--create" in each.words or each.has("-c")


def _keys(run: Run) -> Iterator[Found]:
    for number, each in enumerate(run.commands):
        words = {*each.words}
        if each.program == "ssh-keygen":
            makes, path = not each.has("-R", "-F", "-l", "-y", "-H"), "/etc/ssh/ssh_host_rsa_key"
        elif each.program == "openssl":
            makes = bool(words & {"genrsa", "genpkey", "gendsa", "dhparam", "-newkey", "-genkey", "-x509"})
            path = ""
        elif each.program in ("gpg", "gpg2"):
            makes, path = (
                bool(words & {"--gen-key", "--full-generate-key", "--generate-key", "--quick-generate-key"}),
                "",
            )
        elif each.program == "keytool":
            makes, path = bool(words & {"-genkey", "-genkeypair", "-genseckey"}), ""
        elif _does(each, _APT, ("install",)):
            makes, path = (
                bool({_named(word) for word in words} & {"openssh-server", "ssh", "ssl-cert"}),
                "/etc/ssh/ssh_host_rsa_key",
            )
        else:
            makes = each.program in ("make-ssl-cert", "wg") and bool(
                words & {"genkey", "genpsk", "generate-default-snakeoil"}
            )
            path = ""
        if makes and (not path or run.keeps(path, number + 1)):
            yield "generated-key", each.line, text_of(each)


CHECKS: tuple[Callable[[Run], Iterator[Found]], ...] = (
    _archives, _python, _conda, _node, _others, _apt_leavings, _accounts, _identity, _bytecode, _caches, _downloads,
    _clones, _values, _temporary, _made_archives, _keys,
)  # fmt: skip
