"""The fences of a document, executed in order in one folder, the long data set exchanged for the nano one."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
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
    with Servers() as servers:
        for language, body in fences:
            run_fence(language, body, folder, user=user, with_output=with_output, servers=servers)
    return len(fences)


class Servers:
    """What a document starts with `forecart serve`, each on a free port in place of 8080, until it ends."""

    def __enter__(self):
        self.processes, self.port = [], None
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            assert process.wait(timeout=30) == 0

    def start(self, words, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", *words, "--port", str(self.port)]
        self.processes.append(subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL))
        for _ in range(600):
            try:
                return self.ask("http://localhost:8080/readyz", None)
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"{command} did not answer")

    def ask(self, url, body):
        url = url if url.startswith("http") else f"http://{url}"
        request = urllib.request.Request(url.replace(":8080", f":{self.port}"), body)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()


def run_fence(language, body, folder, *, user, with_output, servers):
    if language == "python":
        run_process([sys.executable, "-c", exchange(body, user)], folder)
        return
    for piece in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, *shown = piece.splitlines()
        said = run_line(exchange(line, user), folder, servers)
        missing = [words for words in shown if words not in ("", "...") and words not in said]
        assert not (with_output and missing), f"$ {line}\nmust say {missing}, it says\n{said}"


def run_curl(words, servers):
    """Asks as curl would: a machine need not have it."""
    body = words[words.index("-d") + 1].encode() if "-d" in words else None
    url = next(word for word in words if "localhost" in word)
    return servers.ask(url, body)


def run_line(line, folder, servers):
    words = shlex.split(line, comments=True)
    if not words or words[0] in NOT_HERE:
        return ""
    if words[0] == "curl":
        return run_curl(words, servers)
    if words[:2] == ["forecart", "serve"]:
        return servers.start(words, folder)
    program = Path(words[0]).name
    return run_process([sys.executable, "-m", *words] if program == "forecart" else words, folder)


def exchange(text, user):
    """`demo` takes ten minutes and a download; `nano` is the same code path."""
    text = text.replace('forecart.run("demo"', 'forecart.run("nano"').replace("runs/demo", "runs/nano")
    text = re.sub(r"\bmake demo\b", "forecart demo", text)
    text = re.sub(r"\bforecart demo\b(?!.*--config)", "forecart demo --config nano", text)
    if user is not None:
        text = re.sub(r"(candidates show )[^\s-]\S*", rf"\g<1>{user}", text)
        text = re.sub(r'(user_id"?[=:] ?)"[^"]*"', rf'\g<1>"{user}"', text)
    return text


def run_process(command, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    said = result.stdout + result.stderr
    assert result.returncode == 0 and "Warning" not in result.stderr, f"{command}\n{said}"
    return said
