"""The command line in this process, and a small log to use it on."""

import json
from datetime import datetime, timedelta
from types import SimpleNamespace

from typer.testing import CliRunner

from forecart.cli import app

START = datetime(2024, 1, 1)


def forecart(*words, code=0):
    """Runs a command; returns its stdout and stderr."""
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="forecart")
    assert result.exit_code == code, (result.output, result.exception)
    return SimpleNamespace(stdout=result.stdout, stderr=result.stderr)


def write_log(
    path, *, header="user_id,event_type,advertiser_id,item_id,occurred_at", num_days=60, separator=","
):
    """A checkout a day of each of five users."""
    rows = [
        [
            f"u{user}",
            "checkout",
            f"a{(user + day) % 4}",
            f"i{(user * day) % 9}",
            f"{START + timedelta(day):%Y-%m-%d}",
        ]
        for day in range(num_days)
        for user in range(5)
    ]
    lines = [header.replace(",", separator), *(separator.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_json_lines(path, *, num_days=60):
    names = ("user_id", "event_type", "advertiser_id", "item_id", "occurred_at")
    lines = write_log(path, num_days=num_days).read_text().splitlines()[1:]
    path.write_text(
        "".join(json.dumps(dict(zip(names, line.split(","), strict=True))) + "\n" for line in lines)
    )
    return path
