"""The Python interface and its example."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import forecart

ROOT = Path(__file__).parents[2]


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, forecart; print(sorted({'torch', 'polars', 'numpy', 'pydantic'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there_and_no_other():
    for name in forecart.__all__:
        assert getattr(forecart, name).__doc__
    assert set(forecart.__all__) <= set(dir(forecart))
    with pytest.raises(AttributeError, match="surprise"):
        _ = forecart.surprise


def test_a_finished_run_is_read(nano):
    run = forecart.open_run(nano.folder)
    assert run.report_path == nano.folder / "report.html"
    assert run.report["next_product"]["all"]["model"]["recall_at_10"] > 0
    everyone = run.candidates("advertiser")
    user = everyone["user_id"][0]
    own = run.candidates("advertiser", user_id=user)
    assert isinstance(own, pl.DataFrame) and own["rank"].to_list() == list(range(1, 61))
    assert own.equals(everyone.filter(pl.col("user_id") == user).sort("rank"))
    assert len(run.events(user, limit=2)) == 2


def test_a_run_started_again_is_the_same_run(nano, tmp_path):
    shutil.copytree(nano.folder, tmp_path / "nano")
    assert forecart.run("nano", folder=tmp_path / "nano").report == forecart.open_run(nano.folder).report


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda run: run.candidates("advertiser", user_id="nobody"), forecart.NotFoundError, "395 users"),
        (lambda run: run.candidates("brand"), forecart.ConfigError, "advertiser or item"),
    ],
)
def test_what_is_not_there_is_named(nano, make, error, message):
    with pytest.raises(error, match=message):
        make(forecart.open_run(nano.folder))


def test_an_empty_folder_is_no_run(tmp_path):
    with pytest.raises(forecart.ArtifactError, match=r"no config\.json"):
        forecart.open_run(tmp_path)


def test_an_unfinished_run_says_what_to_do(nano, tmp_path):
    (tmp_path / "config.json").write_bytes((nano.folder / "config.json").read_bytes())
    run = forecart.open_run(tmp_path)
    with pytest.raises(forecart.ArtifactError, match="forecart run"):
        _ = run.report_path
    with pytest.raises(forecart.ArtifactError, match="forecart evaluate"):
        _ = run.report
    with pytest.raises(forecart.ArtifactError, match="candidates generate"):
        run.candidates("item")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_the_examples_run_and_are_short(nano, tmp_path, path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "nano").symlink_to(nano.folder)
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", '"""'))]
    assert len(lines) < 10
    command = [sys.executable, "-W", "error", path]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout and "rank" in result.stdout
