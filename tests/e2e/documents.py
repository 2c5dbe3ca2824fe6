"""The fences of a document, executed in order in one folder, the long data set exchanged for the nano one."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"^```(console|python)\b[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
NOT_HERE = ("git", "cd", "pip", "python3", "source", ".", "open")
"""What sets a machine up, or needs a screen."""


def run_document(path, folder, *, user=None, with_output=False):
    """Executes every command and every piece of Python; returns how many fences there were.

    `user` takes the place of the ids that the document names. `with_output`: each line that a fence shows
    below a command must be in what the command says, but for `...`.
    """
    fences = FENCE.findall(path.read_text(encoding="utf-8"))
    for language, body in fences:
        if language == "python":
            run_process([sys.executable, "-c", exchange(body, user)], folder)
            continue
        for piece in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            line, *shown = piece.splitlines()
            said = run_line(exchange(line, user), folder)
            missing = [words for words in shown if words not in ("", "...") and words not in said]
            assert not (with_output and missing), f"$ {line}\nmust say {missing}, it says\n{said}"
    return len(fences)


def run_line(line, folder):
    words = shlex.split(line, comments=True)
    if not words or words[0] in NOT_HERE:
        return ""
    program = Path(words[0]).name
    return run_process([sys.executable, "-m", *words] if program == "forecart" else words, folder)


def exchange(text, user):
    """`demo` takes ten minutes and a download; `nano` is the same code path."""
    text = text.replace('forecart.run("demo"', 'forecart.run("nano"').replace("runs/demo", "runs/nano")
    text = re.sub(r"\bmake demo\b", "forecart demo", text)
    text = re.sub(r"\bforecart demo\b(?!.*--config)", "forecart demo --config nano", text)
    if user is not None:
        text = re.sub(r"(candidates show )[^\s-]\S*", rf"\g<1>{user}", text)
        text = re.sub(r'user_id="[^"]*"', f'user_id="{user}"', text)
    return text


def run_process(command, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    said = result.stdout + result.stderr
    assert result.returncode == 0 and "Warning" not in result.stderr, f"{command}\n{said}"
    return said
