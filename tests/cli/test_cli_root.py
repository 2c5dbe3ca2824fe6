"""What all commands share: help that teaches, errors of one line, exit codes, a current document."""

from pathlib import Path

import pytest
from commands import forecart

import forecart as package
from forecart.cli import run as run_module
from forecart.cli.reference import write_reference
from forecart.cli.terminal import told
from forecart.observe import ConsoleReporter, SilentReporter

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "demo",
    "init",
    "run",
    "train",
    "evaluate",
    "events validate",
    "plan",
    "candidates generate",
    "candidates show",
    "report path",
    "config show",
]


def test_the_version():
    assert forecart("--version").stdout == f"forecart {package.__version__}\n"


@pytest.mark.parametrize("words", COMMANDS)
def test_help_says_what_it_does_and_shows_an_example(words):
    said = forecart(*words.split(), "--help").stdout
    assert "Examples:" in said and f"forecart {words}" in said and "--json" in said


def test_the_document_is_what_the_help_says():
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == write_reference(), "run: python -m forecart.cli.reference > docs/cli.md"


@pytest.mark.parametrize("words", ["run nowhere.toml", "config show nowhere", "report path --run nowhere"])
def test_a_mistake_is_one_line_and_exit_code_2(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = forecart(*words.split(), code=2)
    assert said.stdout == "" and said.stderr.startswith("error: ") and said.stderr.count("\n") == 1
    assert "nowhere" in said.stderr and list(tmp_path.iterdir()) == []


def test_a_rule_broken_in_a_file_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(forecart("config", "show", "nano").stdout.replace("window_days = 7", "window_days = 0"))
    assert "labels.window_days" in forecart("run", path, code=2).stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "window_days = ",
            "window_dayz = ",
            "labels.window_dayz: there is no such key; did you mean window_days?",
        ),
        ("[labels]", "[label]", "label: there is no such key; did you mean labels?"),
        ("[split]", "zzz = 1\n[split]", "labels.zzz: there is no such key; known are positives, "),
        (
            "as_of = ",
            "qqq = ",
            "split.qqq: there is no such key; known are as_of, test_cuts, validate_before",
        ),
    ],
)
def test_a_misspelt_key_is_named_with_what_was_meant(tmp_path, old, new, said):
    path = tmp_path / "run.toml"
    path.write_text(forecart("config", "show", "nano").stdout.replace(old, new, 1))
    assert said in forecart("run", path, code=2).stderr


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    said = forecart("run", "nano", "--output", tmp_path / "file" / "run", code=2).stderr
    assert said.splitlines()[-1].startswith(f"error: {tmp_path}/file") and "Traceback" not in said


def test_an_interruption_says_how_to_go_on(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "opened_workflow", interrupt)
    said = forecart("train", "nano", code=130)
    assert "continues" in said.stderr and said.stderr.count("\n") == 1


def test_quiet_is_quiet():
    with told(quiet=True) as silent, told(quiet=False) as loud:
        assert isinstance(silent, SilentReporter) and isinstance(loud, ConsoleReporter)
