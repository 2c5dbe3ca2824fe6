"""`forecart plan`: what a size of business costs, from laws that were measured."""

from typing import Annotated

import typer

from forecart.cli.terminal import JsonOption, examples, print_json
from forecart.planning.demand import Demand, Machine
from forecart.planning.laws import load_laws
from forecart.planning.plan import make_plan
from forecart.planning.table import render_plan


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "forecart plan --items 1e6 --users 1e7 --events-per-day 1e8",
            "forecart plan --items 1e9 --users 1e8 --events-per-day 1e10 --machine-cores 64 --hours 12",
            "forecart plan --items 1e9 --users 1e8 --events-per-day 1e10 --json",
        )
    )(plan)


def plan(  # noqa: PLR0913  (the options of the command)
    items: Annotated[float, typer.Option(help="Products.")],
    users: Annotated[float, typer.Option(help="Users with a history.")],
    events_per_day: Annotated[float, typer.Option(help="Events that arrive.")],
    history_days: Annotated[float, typer.Option(help="Days of events that histories hold.")] = 30,
    requests_per_s: Annotated[float, typer.Option(help="Ad requests at the peak.")] = 10_000,
    width: Annotated[int, typer.Option(help="Of the vectors.")] = 64,
    top_k: Annotated[int, typer.Option(help="Candidates of each kind in a list.")] = 100,
    machine_cores: Annotated[float, typer.Option(help="Cores of a machine.")] = 32,
    machine_memory_gb: Annotated[float, typer.Option(help="Memory of a machine.")] = 256,
    hours: Annotated[float, typer.Option(help="Within which a rebuild is over.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Say what a size of business costs: memory, disk, core-hours and machines, and what breaks first.

    Times are laws T = a n^b, fitted to runs of this version and kept in the package with their range, machine
    and commit; the last column says how many times a size lies beyond what was measured. Sizes of formats
    without compression are exact. A core is one of the machine that was measured. Machines are what time and
    memory divide into; what one process must hold stands among what breaks.
    """
    demand = Demand(
        num_items=items,
        num_users=users,
        events_per_day=events_per_day,
        history_days=history_days,
        requests_per_s=requests_per_s,
        width=width,
        top_k=top_k,
    )
    made = make_plan(demand, Machine(machine_cores, machine_memory_gb, hours), load_laws())
    print_json(made.to_facts()) if as_json else typer.echo(render_plan(made))
