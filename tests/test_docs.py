"""The documents: links lead somewhere, commands exist, and code marked `run` runs.

A fence opened with ```python run is executed, each in a process of its own in an empty folder. A fence
opened with ```console run has its `$ ` lines executed one after the other, in one folder a document.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    info: str
    body: str


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def fences_of(path):
    return [Fence(info.strip(), body) for info, body in FENCE.findall(path.read_text(encoding="utf-8"))]


def prose_of(path):
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors_of(path):
    """The anchors of the headings, as GitHub makes them."""
    headings = [
        re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", text) for text in HEADING.findall(prose_of(path))
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_of(path):
    """Every command that a document shows: `$ ` lines, lines of shell fences, `code` in the prose."""
    shown = []
    for fence in fences_of(path):
        language = fence.info.split(" ")[0]
        if language == "console":
            shown += [line[2:] for line in fence.body.splitlines() if line.startswith("$ ")]
        elif language in ("sh", "bash", "shell"):
            shown += fence.body.splitlines()
    shown += [
        code for code in re.findall(r"`((?:make|forecart) [^`\n]+)`", prose_of(path)) if "=" not in code
    ]
    return [line.split("  #")[0].strip() for line in shown]


def words_of(program):
    """The words after `program` in each command of each document, up to the first that is no plain word."""
    found = set()
    for path in DOCUMENTS:
        for command in commands_of(path):
            match = re.match(rf"(?:\S*/)?{program}((?: [a-z][a-z-]*)+)(?= |$)", command)
            if match:
                found.add((name_of(path), match.group(1).strip()))
    return sorted(found)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path):
    broken = []
    for link in LINK.findall(prose_of(path)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = path.parent / target if target else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_fences_are_closed(path):
    assert len(re.findall(r"^```", path.read_text(encoding="utf-8"), re.MULTILINE)) % 2 == 0


def test_decision_records_are_numbered_without_gaps_and_have_their_parts():
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]}: ")
        assert all(f"\n## {part}\n" in text for part in ("Context", "Decision", "Consequences")), path.name


def test_make_targets_exist():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    shown = {word for _, words in words_of("make") for word in words.split()[:1]}
    assert shown <= targets
    assert {"help", "setup", "demo", "test", "check", "acceptance", "format", "clean"} <= targets


FORECART = words_of("forecart")


@pytest.mark.skipif(find_spec("forecart.__main__") is None, reason="there is no command line yet")
@pytest.mark.parametrize("words", sorted({words for _, words in FORECART}))
def test_commands_exist(words):
    """Some leading words are a command; the rest, if any, are its arguments."""
    nouns = words.split()[:2]
    tries = [nouns[:count] for count in range(len(nouns), 0, -1)]
    assert any(is_command(nouns) for nouns in tries), f"forecart {words}"


def is_command(nouns):
    command = [sys.executable, "-m", "forecart", *nouns, "--help"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def runnable(language):
    found = [
        pytest.param(fence.body, id=f"{name_of(path)}-{at}")
        for path in DOCUMENTS
        for at, fence in enumerate(fences_of(path))
        if fence.info == f"{language} run"
    ]
    return found


@pytest.mark.parametrize("code", runnable("python"))
def test_python_runs(code, tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


CONSOLES = [path for path in DOCUMENTS if any(fence.info == "console run" for fence in fences_of(path))]


@pytest.mark.parametrize("path", CONSOLES, ids=name_of)
def test_console_runs(path, tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for fence in fences_of(path):
        lines = fence.body.splitlines() if fence.info == "console run" else []
        for command in [line[2:] for line in lines if line.startswith("$ ")]:
            result = subprocess.run(
                shlex.split(command),
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, f"$ {command}\n{result.stdout}{result.stderr}"
