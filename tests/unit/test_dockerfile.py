import json
import re
import time

import pytest

from reprobuild.errors import BadInput, LockStale
from reprobuild.image import dockerfile as dockerfiles
from reprobuild.image.dockerfile import NeedsBuildKit
from reprobuild.image.resolve import resolve
from reprobuild.image.stages import BaseImage, Copy, Folder
from reprobuild.oci.model import ImageConfig, Platform

AMD64 = Platform("linux", "amd64")
DIGEST = "sha256:" + "a" * 64
BASE = f"registry.example/base:1@{DIGEST}"


def config(**settings):
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": settings,
    }
    return ImageConfig.read(json.dumps(document).encode(), "base")


def resolved(text, *, base=None, platform=AMD64, **more):
    asked = []

    def config_of(image):
        asked.append(image)
        return base or config()

    parsed = dockerfiles.parse(text, "images/x/Dockerfile")
    spec = resolve(parsed, config_of, platform=platform, epoch=7, **more)
    return spec, asked


def test_what_the_base_says_is_kept_and_can_be_used():
    base = config(
        Env=["PATH=/base", "OLD=1"],
        Cmd=["old"],
        WorkingDir="/srv",
        User="5",
        Labels={"a": "b"},
        Shell=["/bin/bash", "-c"],
    )
    text = f"FROM {BASE}\nENV PATH=/opt:$PATH OLD=2\nWORKDIR app\nLABEL c=$OLD\nENTRYPOINT run\nCOPY a .\n"
    spec, asked = resolved(text, base=base)
    assert asked == [BaseImage(BASE, AMD64, 1)]
    assert spec.target.base == asked[0]
    assert spec.target.settings == {
        "Env": ["PATH=/opt:/base", "OLD=2"],
        "WorkingDir": "/srv/app",
        "User": "5",
        "Labels": {"a": "b", "c": "2"},
        "Shell": ["/bin/bash", "-c"],
        "Entrypoint": ["/bin/bash", "-c", "run"],
    }
    assert [step for step in spec.target.steps if isinstance(step, Folder)] == [
        Folder("WORKDIR app", 3, "/srv/app", "5")
    ]
    assert base.settings["Env"] == ["PATH=/base", "OLD=1"]


def test_the_same_base_twice_has_settings_of_its_own():
    spec, _ = resolved(f"FROM {BASE} AS one\nENV A=1\nFROM one AS two\nENV A=2\nFROM one\nCOPY --from=two /x /y\n")
    assert [stage.settings.get("Env") for stage in spec.stages] == [["A=1"], ["A=2"], ["A=1"]]


def test_only_what_the_target_needs_is_looked_at():
    text = (
        f"FROM other:tag AS unused\nRUN x\nFROM {BASE} AS used\nCOPY a /\nFROM scratch AS last\nCOPY --from=used /a /\n"
    )
    text += "FROM nothing:1\nRUN y\n"
    spec, asked = resolved(text, target="LAST")
    assert [each.reference for each in asked] == [BASE]
    assert [(stage.name, stage.base) for stage in spec.stages] == [("used", asked[0]), ("last", None)]
    copy = spec.target.steps[0]
    assert isinstance(copy, Copy)
    assert copy.origin == 0


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("FROM scratch\nRUN make\n", BadInput, ":2: RUN .*--engine buildkit"),
        ("FROM scratch\nENV A=1\nRUN <<EOF\nmake\nEOF\n", BadInput, ":3: RUN .*--engine buildkit"),
        ("FROM scratch\nRUN --mount=type=cache,target=/x make\n", BadInput, ":2: RUN .*--engine buildkit"),
        ("FROM scratch\nONBUILD COPY . /\n", BadInput, ":2: ONBUILD .*--engine buildkit"),
        ("FROM scratch\nADD https://example.org/x /x\n", BadInput, ":2: ADD .* would fetch .*--engine buildkit"),
        ("FROM scratch\nADD git@example.org:x/y.git /x\n", BadInput, ":2: ADD .* would fetch"),
        ("FROM scratch\nADD --checksum=sha256:0 a /x\n", BadInput, ":2: ADD --checksum .*--engine buildkit"),
        ("FROM scratch\nCOPY --parents a /x\n", BadInput, ":2: COPY --parents .*--engine buildkit"),
        ("FROM scratch\nCOPY --exclude=*.pyc a /x\n", BadInput, ":2: COPY --exclude .*--engine buildkit"),
        ("FROM scratch\nCOPY --chwon=1 a /x\n", BadInput, ":2: .*--chwon.*Did you mean --chown"),
        ("FROM python:3.12\n", LockStale, ":1: FROM python:3.12 has no digest.*reprobuild lock"),
        ("FROM scratch\nCOPY --from=busybox:1 /a /\n", LockStale, ":2: COPY --from busybox:1 has no .*reprobuild lock"),
        (
            "FROM scratch AS one\nCOPY --from=later /a /\nFROM scratch AS later\nFROM one\n",
            BadInput,
            ":2: The stage 'later' comes later",
        ),
        (f"FROM a:1@{DIGEST[:-2]}\n", BadInput, ":1: What is behind the @ of a:1@.* is no digest.*Take it away"),
        (
            "FROM scratch AS tools\nFROM scratch\nCOPY --from=Tols /a /\n",
            LockStale,
            ":3: COPY --from Tols has no digest.*Did you mean the stage tools.*reprobuild lock",
        ),
        ("FROM scratch AS tools\nFROM tols AS toolz\n", LockStale, ":2: FROM tols .*the stage tools.*reprobuild lock"),
        ("FROM scratch AS python-build\nFROM python\n", LockStale, "may change. Run `reprobuild lock`"),
        ("FROM scratch AS tools\nFROM tools:1\n", LockStale, "may change. Run `reprobuild lock`"),
        ("FROM debain AS debian\n", LockStale, "may change. Run `reprobuild lock`"),
        ("FROM --platform=linux scratch\n", BadInput, ":1: 'linux' is not a platform"),
        ("ARG A=1\n", BadInput, "has no FROM"),
        ("", BadInput, "has no FROM"),
        ("ENV A=1\nFROM scratch\n", BadInput, ":1: ENV stands before"),
        ("FROM scratch\nNOPE x\n", BadInput, ":2: unknown instruction: NOPE"),
        ("FROM scratch\nCOPY --from=" + "1" * 5000 + " a /\n", BadInput, ":2: There is no stage 1+… before"),
        ("FROM scratch\nCOPY --chmod=9x a /x\n", BadInput, ":2: --chmod=9x is no octal .*, and no change"),
        ("FROM scratch\nCOPY --chmod=u+q a /x\n", BadInput, r":2: --chmod=u\+q is no octal .*, and no change"),
        ("FROM scratch\nCOPY --chmod=a=rX,u+w,g=u a /x\n", NeedsBuildKit, ":2: .*--engine buildkit"),
        ("FROM scratch\nCOPY <<EOF /x\nend\n", BadInput, ":2: unterminated heredoc"),
        ("FROM scratch\nCMD " + "[" * 100_000, BadInput, "nested too deeply"),
        ("FROM scratch\nENV A=" + "${A:-" * 5000 + "}" * 5000, BadInput, ":2: "),
        ("FROM scratch\nENV A=\0\n", BadInput, "NUL"),
        ('FROM scratch\nCMD ["\\ud800"]\n', BadInput, ":2: .*surrogate"),
        ('FROM scratch\nCOPY ["a\\u0000", "/x"]\n', BadInput, ":2: .*NUL"),
        ("FROM scratch\nCOPY 'sp ace' /x/\n", BadInput, r':2: .*Write COPY \["…", "…"\]'),
        ("#" * (1 << 20) + "\nFROM scratch\n", BadInput, "more than 1048576 characters"),
    ],
)
def test_what_cannot_be_done_says_where_and_what_to_do(text, kind, words):
    with pytest.raises(kind) as caught:
        resolved(text)
    assert caught.value.reason.startswith("images/x/Dockerfile")
    assert re.search(words, f"{caught.value.reason} {caught.value.remedy}")


def test_triggers_of_a_base_need_the_other_engine():
    with pytest.raises(BadInput, match=r"x/Dockerfile:1: The base has ONBUILD") as caught:
        resolved(f"FROM {BASE}\n", base=config(OnBuild=["RUN x"]))
    assert "--engine buildkit" in caught.value.remedy


def test_build_arguments_take_the_place_of_defaults():
    text = "ARG TAG=1\nFROM scratch\nARG TAG\nARG OTHER=x\nARG TARGETARCH\nARG SOURCE_DATE_EPOCH\n"
    text += "ENV A=$TAG B=$OTHER C=$TARGETARCH D=$SOURCE_DATE_EPOCH\n"
    spec, _ = resolved(text, build_args={"TAG": "2", "OTHER": "y"}, platform=Platform("linux", "arm64", "v8"))
    assert spec.target.settings["Env"][1:] == ["A=2", "B=y", "C=arm64", "D=7"]


def test_a_base_can_be_a_build_argument():
    text = "ARG BASE=scratch\nFROM --platform=${TARGETPLATFORM} ${BASE}\n"
    assert resolved(text)[1] == []
    arm = Platform("linux", "arm", "v7")
    assert resolved(text, build_args={"BASE": BASE}, platform=arm)[1] == [BaseImage(BASE, arm, 2)]


def test_a_build_argument_that_nobody_declares_is_a_typing_mistake():
    text = "FROM scratch\nARG VERSION\n"
    with pytest.raises(BadInput, match="has no ARG VERISON") as caught:
        resolved(text, build_args={"VERISON": "1"})
    assert caught.value.remedy == "Did you mean VERSION?"
    for name in ("https_proxy", "NO_PROXY", "SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE", "TARGETARCH"):
        assert resolved(text, build_args={name: "1"})


def test_an_unknown_target_is_told_which_there_are():
    with pytest.raises(BadInput, match="no stage 'prod'") as caught:
        resolved("FROM scratch AS dev\nFROM scratch AS test\n", target="prod")
    assert caught.value.remedy == "It has dev, test."


def test_the_environment_is_a_place_to_copy_from():
    spec, _ = resolved("FROM scratch\nCOPY --from=environment / /opt/venv/\n")
    assert spec.target.steps == (
        Copy(
            "COPY --from=environment / /opt/venv/",
            2,
            sources=("",),
            destination="/opt/venv/",
            origin="environment",
            owner="",
            mode=None,
            inline=(),
            unpacks=False,
        ),
    )


def test_a_copy_from_an_image_names_its_digest_and_platform():
    spec, _ = resolved(f"FROM scratch\nCOPY --from={BASE} --chown=1:2 --chmod=0750 ../bin/x /usr/local/bin/\n")
    step = spec.target.steps[0]
    assert isinstance(step, Copy)
    assert (step.origin, step.owner, step.mode) == (BaseImage(BASE, AMD64, 2), "1:2", 0o750)
    assert step.sources == ("bin/x",)


def test_a_stage_has_the_platform_that_it_starts_from():
    spec, _ = resolved(f"FROM --platform=linux/arm64 {BASE} AS arm\nFROM arm\nCOPY a /\n")
    assert [str(stage.platform) for stage in spec.stages] == ["linux/arm64", "linux/arm64"]


MANY = "$a" * 20


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ENV a=0123456789\n" + f"ENV a={MANY}\n" * 6, 6),
        ("ENV a=0123456789\n" + f"ENV a={MANY}\n" * 3 + f"ENV b={MANY * 1000}\n", 6),
        ("ENV a=0123456789\n" + f"ENV a={MANY}\n" * 3 + f"EXPOSE {MANY * 1000}\n", 6),
        (f"ENV a={'x' * 90_000}\nENV b=${{a//x/{'y' * 90_000}}}\n", 3),
        (f"ENV a={'x' * 3_000}\nENV b={'${a//x/' + 'y' * 400 + '}'}\n", 3),
        (f"ENV a={'x' * 60_000} r={'y' * 900}\nENV b={'${a//x/$r}' * 30}\n", 3),
        (f"ENV a={'x' * 600_000}\nCOPY <<E /x\n$a$a\nE\n", 3),
        (f"ENV a={'x' * 600_000}\nENV b=$a c=$a d=$a$a\n", 3),
    ],
)
def test_what_grows_without_measure_is_refused(text, line):
    with pytest.raises(BadInput, match=rf"^images/x/Dockerfile:{line}: Its variables make it longer than 1048576 "):
        resolved(f"FROM scratch\n{text}")


def test_what_is_long_is_fine():
    long, path = "x" * 500_000, "/usr/local/sbin:" * 200
    spec, _ = resolved(f"FROM scratch\nENV a={long} p={path}\nENV b=$a$a c=${{p//:/;}}${{p//sbin/bin}}${{p/x/y}}\n")
    env = dict(line.split("=", 1) for line in spec.target.settings["Env"])
    assert env["b"] == long * 2
    assert env["c"] == path.replace(":", ";") + path.replace("sbin", "bin") + path


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("retries=" + "1" * 5000, "is no number"),
        ("retries=2147483648", "is no number"),
        ("retries=", "is no number"),
        ("retries=²", "is no number"),
        ("interval=" + "1" * 40_000, "is no duration"),
        ("interval=" + "0" * 200 + "1s", "is no duration"),
        ("interval=٣s", "is no duration"),
        ("timeout=" + "9" * 90 + "h", "is no duration"),
    ],
)
def test_a_healthcheck_has_numbers_of_a_sane_length(flag, why):
    begun = time.process_time()
    with pytest.raises(BadInput, match=f"^images/x/Dockerfile:2: --.*{why}") as caught:
        resolved(f"FROM scratch\nHEALTHCHECK --{flag} CMD true\n")
    assert len(str(caught.value)) < 400
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(("text", "number"), [("2147483647", 2147483647), ("0" * 5000 + "3", 3), ("00", None)])
def test_retries(text, number):
    spec, _ = resolved(f"FROM scratch\nHEALTHCHECK --retries={text} --interval=1.5s CMD true\n")
    found = spec.target.settings["Healthcheck"]
    assert (found.get("Retries"), found["Interval"]) == (number, 1_500_000_000)
