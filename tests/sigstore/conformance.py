#!/usr/bin/env python3
"""Hold verification against the public test suite for Sigstore clients, sigstore-conformance (Apache-2.0).

    conformance.py FOLDER     the suite's folder test/assets/bundle-verify, in a copy of its repository

Each of its cases is a bundle, with the artifact, the identity or key and the root of trust that it is to be verified
with; the name says whether it has to fail. What we refuse whatever it holds is counted apart, since that we refuse it
says nothing: bundles that sign a file itself and no statement, and those whose log entry is of the kind intoto, which
the client doesn't read. Exit code 1 if anything else is judged otherwise than the suite does, or one of these counts.
"""

import argparse
import json
import sys
from pathlib import Path

from reprobuild.digest import Digest
from reprobuild.errors import ReprobuildError
from reprobuild.keys import PublicKey
from reprobuild.policy import Identity, Policy
from reprobuild.verification import verify

ISSUER = "https://token.actions.githubusercontent.com"
#: Whoever signed what doesn't name anybody, as the suite's README says.
IDENTITY = (
    "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/"
    "extremely-dangerous-oidc-beacon.yml@refs/heads/main"
)


def text(path: Path, otherwise: str) -> str:
    """What a file holds, if it is there."""
    return path.read_text().strip() if path.exists() else otherwise


def judge(case: Path) -> tuple[bool, str]:
    """Whether a case's bundle counts, and if not, why."""
    artifact = case / "artifact" if (case / "artifact").exists() else case.parent / "a.txt"
    key, trust = case / "key.pub", case / "trusted_root.json"
    try:
        if key.exists():
            policy = Policy(keys=(PublicKey.load(key),))
        else:
            who = Identity(text(case / "identity", IDENTITY), text(case / "issuer", ISSUER))
            policy = Policy(identities=(who,))
        raw = (case / "bundle.sigstore.json").read_bytes()
        found = verify(Digest.of_file(artifact), [("bundle", raw)], policy, trust=trust if trust.exists() else None)
    except ReprobuildError as error:
        return False, error.reason
    return bool(found.accepted), "".join(found.refused)


def is_of_no_use_here(case: Path) -> bool:
    """Whether we refuse it whatever it holds."""
    try:
        bundle = json.loads((case / "bundle.sigstore.json").read_bytes())
    except ValueError:
        return False
    entries = bundle["verificationMaterial"].get("tlogEntries") or [{}]
    return "dsseEnvelope" not in bundle or entries[0].get("kindVersion", {}).get("kind") == "intoto"


def main() -> int:
    """Judge all, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    came_to = dict.fromkeys(("right", "WRONG", "apart"), 0)
    for case in sorted(path for path in folder.iterdir() if (path / "bundle.sigstore.json").exists()):
        counts, why = judge(case)
        has_to_fail = case.name.endswith("_fail")
        if is_of_no_use_here(case):
            verdict = "apart" if not counts else "WRONG"
        else:
            verdict = "right" if counts != has_to_fail else "WRONG"
        came_to[verdict] += 1
        sys.stdout.write(f"{verdict} {case.name}: {why or 'counts'}\n")
    sys.stdout.write(", ".join(f"{number} {verdict}" for verdict, number in came_to.items()) + "\n")
    return 1 if came_to["WRONG"] or not came_to["right"] else 0


if __name__ == "__main__":
    sys.exit(main())
