"""One S3-compatible server holds log, run and release: each stage on a fresh machine, served over HTTP."""

import os
import shutil
import subprocess
import sys
from importlib import resources

import polars as pl
import pytest
from tests.serving.server_process import serving, wait_until

from forecart import open_run
from forecart.api import opened_workflow
from forecart.config import load_config
from forecart.observe import SilentReporter
from forecart.run_mirror import RunMirror
from forecart.workflow import Workflow

STAGES = 9
USERS = 12


class Told(SilentReporter):
    def __init__(self):
        self.stages = []

    def stage(self, name, *, is_done):
        self.stages.append((name, is_done))


def run_command(*words, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, "-m", "forecart", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bucket(s3, nano, tmp_path_factory):
    """The log of the nano run in a bucket, and the configuration file that reads it there."""
    for path in sorted((nano.folder / "events").glob("*.parquet")):
        s3.put(f"nano/log/{path.name}", path)
    head, _, rest = (
        resources.files("forecart.configs").joinpath("nano.toml").read_text().partition("[source]")
    )
    source = f"""
[source]
events = ["{s3.place("nano/log/part-*.parquet")}"]
catalogue = "{s3.place("nano/log/catalogue.parquet")}"
"""
    path = tmp_path_factory.mktemp("config") / "nano.toml"
    path.write_text(head + source + rest[rest.index("[events]") :])
    return path


@pytest.fixture(scope="module")
def remote(s3, bucket, tmp_path_factory):
    """The run in the bucket, done by machines that have nothing on their disks, and what was told."""
    url, told, folder = str(s3.place("nano/run")), Told(), tmp_path_factory.mktemp("machines")
    steps = [
        lambda workflow: workflow.events(),
        lambda workflow: workflow.learn(),
        lambda workflow: (workflow.learn(), workflow.evaluate()),
        lambda workflow: workflow.run(),
    ]
    for number, step in enumerate(steps):
        machine = folder / str(number)
        with opened_workflow(bucket, folder=url, work_folder=machine, reporter=told) as workflow:
            step(workflow)
        shutil.rmtree(machine)
    return url, told


def test_nothing_is_computed_twice(remote):
    _, told = remote
    names = [name for name, is_done in told.stages if not is_done]
    assert len(names) == len(set(names)) == STAGES, names


def test_the_lists_are_those_of_the_run_on_the_disk(remote, nano, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = open_run(remote[0])
    for level in ("advertiser", "item"):
        here, there = open_run(nano.folder).candidates(level), run.candidates(level)
        assert there.height > 0 and there.equals(here)


def test_another_machine_reports_what_is_finished_without_bringing_the_rest(s3, bucket, remote, tmp_path):
    manifests = {name: size for name, size in s3.place("nano/run").sizes().items() if "manifest" in name}
    before = {name: s3.place(f"nano/run/{name}").describe() for name in manifests}
    done = run_command("run", bucket, "--output", remote[0], "--work-dir", tmp_path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "report.html")
    assert {name: s3.place(f"nano/run/{name}").describe() for name in manifests} == before
    assert not list(tmp_path.rglob("vectors-*.npy")) and not list(tmp_path.rglob("*.safetensors"))
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"nano/log/part-" in everything
    assert s3.environment["AWS_SECRET_ACCESS_KEY"].encode() not in everything + done.stderr.encode()


def test_a_listing_that_is_stopped_goes_on_elsewhere_with_its_finished_parts(place, nano, tmp_path):
    config = load_config("nano")
    candidates = config.candidates.model_copy(update={"block_users": 1})
    config = config.model_copy(update={"candidates": candidates})

    class Counting(SilentReporter):
        def __init__(self, limit):
            self.done, self.limit, self.total = set(), limit, 0

        def progress(self, what, done, total):
            self.done.add(done)  # told of a user, and again of the part that ends with it
            self.total = total
            if len(self.done) == self.limit:
                raise KeyboardInterrupt

    def list_advertisers(folder, reporter):
        workflow = Workflow(config, folder, reporter=reporter, mirror=RunMirror(place, folder))
        workflow.learn()
        workflow.candidates("advertiser")

    one, two, lists = tmp_path / "one", tmp_path / "two", "candidates/advertisers"
    shutil.copytree(nano.folder, one)
    shutil.rmtree(one / "candidates")
    with pytest.raises(KeyboardInterrupt):
        list_advertisers(one, Counting(100))
    parts = {path.name: path.read_bytes() for path in (one / lists).glob("part-*.parquet")}
    assert len(parts) == 3  # of 32 users each
    second = Counting(None)
    list_advertisers(two, second)
    assert len(second.done) == second.total - 3 * 32
    assert {name: (two / lists / name).read_bytes() for name in parts} == parts
    listed = pl.read_parquet(two / lists / "part-*.parquet")
    assert not listed.select("user_id", "rank").is_duplicated().any()
    everyone = pl.read_parquet(nano.folder / lists / "part-*.parquet")
    assert set(listed["user_id"]) == set(everyone["user_id"])


def test_a_release_in_the_bucket_is_served_with_the_answers_of_the_run_on_the_disk(
    s3, remote, nano, tmp_path
):
    store = s3.place("nano/releases")
    done = run_command(
        *("release", "publish", remote[0], "--releases", tmp_path / "publisher", "--store", store),
        folder=tmp_path / "publishing",
    )
    assert done.returncode == 0, done.stderr
    users = open_run(nano.folder).candidates("advertiser")["user_id"].unique(maintain_order=True)[:USERS]
    options = ("--clock", "as-of")
    with (
        serving(
            tmp_path / "there", "--releases", tmp_path / "answering", "--store", store, *options
        ) as there,
        serving(tmp_path / "here", "--releases", nano.folder / "releases", *options) as here,
    ):
        answers = [[server.advertisers(user) for user in users] for server in (there, here)]
        for one, other in zip(*answers, strict=True):
            assert one["source"] == other["source"] == "advertisers"
            assert one["advertisers"] == other["advertisers"]
        first = answers[0][0]["release"]
        assert first == done.stdout.strip()
        # Another release is published from a third machine, and noticed.
        again = run_command(
            *("release", "publish", remote[0], "--releases", tmp_path / "third", "--store", store),
            *("--ttl-days", "30"),
            folder=tmp_path / "publishing",
        )
        assert again.returncode == 0, again.stderr
        second = again.stdout.strip()
        assert second != first
        wait_until(lambda: there.advertisers(users[0])["release"] == second)
        back = run_command(
            *("release", "rollback", "--releases", tmp_path / "fourth", "--store", store),
            folder=tmp_path / "publishing",
        )
        assert back.stdout.strip() == first, back.stderr
        wait_until(lambda: there.advertisers(users[0])["release"] == first)
        gone = run_command(
            *("release", "suppress", users[0], "--releases", tmp_path / "third", "--store", store),
            folder=tmp_path / "publishing",
        )
        assert gone.returncode == 0, gone.stderr
        wait_until(lambda: there.advertisers(users[0])["source"] != "advertisers")
        assert there.advertisers(users[1])["source"] == "advertisers"
    assert set(s3.place("nano").sizes()) >= {"log/part-00000.parquet", "run/report.html", "run/config.json"}
