"""`forecart plan` says what docs/scaling.md says, and the same as numbers."""

import json
from pathlib import Path

import pytest
from benchmarks.growth_page import PLANS
from commands import forecart

from forecart.planning.demand import Demand, Machine
from forecart.planning.laws import load_laws
from forecart.planning.plan import make_plan

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.mark.parametrize("title", PLANS)
def test_the_page_shows_what_the_command_prints(title):
    command = PLANS[title][0]
    printed = forecart(*command.split()[1:]).stdout
    assert f"$ {command}\n```\n\n{printed}" in PAGE.read_text(encoding="utf-8")


def test_options_reach_the_plan():
    words = "plan --items 1e6 --users 2e7 --events-per-day 3e8 --history-days 7 --width 32 --top-k 50 "
    words += "--requests-per-s 500 --machine-cores 8 --machine-memory-gb 64 --hours 3 --json"
    found = json.loads(forecart(*words.split()).stdout)
    demand = Demand(1e6, 2e7, 3e8, history_days=7, requests_per_s=500, width=32, top_k=50)
    assert found == json.loads(json.dumps(make_plan(demand, Machine(8, 64, 3), load_laws()).to_facts()))
    assert [part["name"] for part in found["serving"]][-1] == "requests"


def test_a_business_of_nobody_is_a_mistake():
    said = forecart("plan", "--items", "10", "--users", "0", "--events-per-day", "10", code=2)
    assert said.stderr.startswith("error: num_users must be at least 1") and said.stderr.count("\n") == 1
