"""`forecart release`: from a finished run to what is served, back again, and what is refused."""

import json
from importlib import resources

import pytest
from tests.cli.commands import forecart


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cli") / "releases"


def release(root, *words, code=0):
    return forecart("release", *words, "--releases", root, code=code)


def test_a_run_is_published_listed_verified_and_rolled_back(nano, root):
    first = release(root, "publish", str(nano.folder))
    first_id = first.stdout.strip()
    again = json.loads(release(root, "publish", str(nano.folder), "--json").stdout)
    assert (again["release_id"], again["sequence"]) == (first_id, 1)
    assert release(root, "suppress", "u000000001").stdout == "suppressed\n"
    second_id = release(root, "publish", str(nano.folder)).stdout.strip()
    assert second_id != first_id
    listed = json.loads(release(root, "list", "--json").stdout)
    assert listed["current"]["release_id"] == second_id
    users = {row["release_id"]: row["num_users"] for row in listed["releases"]}
    assert users[first_id] == users[second_id] + 1
    assert second_id in release(root, "list").stdout
    assert release(root, "verify").stdout.count("is whole") == 2
    assert release(root, "rollback").stdout.strip() == first_id
    assert json.loads(release(root, "rollback", second_id, "--json").stdout)["move"] == "rollback"


def test_what_cannot_be_is_one_line(nano, root, tmp_path):
    for words, message in [
        (("publish", str(tmp_path)), "has no candidates to publish"),
        (("rollback", "../x"), "a release is named like"),
        (("publish", str(nano.folder), "--store", "http://x"), "a store is a URL such as redis://"),
        (("publish", str(nano.folder), "--store", "redis://127.0.0.1:1/0"), "the store in Redis must answer"),
    ]:
        done = release(root, *words, code=2)
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert message in done.stderr


@pytest.mark.parametrize(("days", "says"), [(13, "is none: run it without --as-of"), (14, "= 14 arrived")])
def test_a_list_expires_no_sooner_than_a_day_lets_go_of_it(tmp_path, days, says):
    """The default --ttl-days are 14: carried for 13 days it is served, and only the run is missing."""
    text = resources.files("forecart.configs").joinpath("nano.toml").read_text()
    (tmp_path / "c.toml").write_text(f"{text}\n[candidates]\nmax_carry_days = {days}\n")
    words = ["run", tmp_path / "c.toml", "--output", tmp_path / "run", "--as-of", "2025-04-06"]
    assert says in forecart(*words, "--publish", tmp_path / "releases", code=2).stderr


def test_damage_is_found_by_verify_whatever_was_found_before(nano, tmp_path):
    root = tmp_path / "releases"
    release_id = release(root, "publish", str(nano.folder)).stdout.strip()
    path = root / "releases" / release_id / "fallback.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    assert "fallback.json" in release(root, "verify", code=2).stderr
