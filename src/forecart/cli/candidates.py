"""`forecart candidates`: lists for everyone, and one user's list beside the user's history."""

from typing import Annotated, Any, Literal

import typer
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

import forecart
from forecart import columns
from forecart.api import opened_workflow
from forecart.cli.terminal import (
    DEFAULT_RUN,
    ConfigArgument,
    EngineOption,
    JsonOption,
    OutputOption,
    QuietOption,
    RayAddressOption,
    RunOption,
    WorkersOption,
    WorkOption,
    examples,
    make_console,
    print_json,
    to_printable,
    told,
)
from forecart.engine.choice import opened_engine
from forecart.sequences.split import PLURAL

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Choice = Literal["advertiser", "item", "both"]


@app.callback()
def candidates() -> None:
    """Candidates for every user."""


@app.command(epilog=examples("forecart candidates generate forecart.toml"))
def generate(  # noqa: PLR0913  (the options of the command)
    config: ConfigArgument,
    output: OutputOption = None,
    work_dir: WorkOption = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the top candidates of every user as Parquet.

    Runs the stages before it where they are missing. Prints the folder of the lists.
    """
    with (
        told(quiet=quiet) as reporter,
        opened_engine(engine, num_workers=workers, address=ray_address) as opened,
        opened_workflow(
            config, folder=output, work_folder=work_dir, reporter=reporter, engine=opened
        ) as workflow,
    ):
        workflow.learn()
        workflow.list_candidates()
    folder = workflow.folder / "candidates"
    print_json({"folder": workflow.folder, "candidates": folder}) if as_json else typer.echo(str(folder))


@app.command(
    epilog=examples(
        "forecart candidates show 1",
        "forecart candidates show u000000001 --run runs/nano --level item --limit 5",
    )
)
def show(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user id of the log.")],
    run: RunOption = DEFAULT_RUN,
    level: Annotated[Choice, typer.Option(help="Which candidates.")] = "both",
    limit: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Print a user's recent events and candidates side by side."""
    found = read_lists(forecart.open_run(run), user, level=level, limit=limit)
    if as_json:
        print_json(found)
        return
    console = make_console()
    console.print(f"user {user}, as of {found['as_of']}", markup=False)
    tables = [_events_table(found["events"])]
    tables += [_list_table(plural, found[plural]) for plural in PLURAL.values() if plural in found]
    console.print(Columns(tables, padding=(0, 3)))


def read_lists(run: forecart.Run, user_id: str, *, level: Choice, limit: int) -> dict[str, Any]:
    """Returns a user's events before the lists were made, and the lists, as plain values.

    Raises:
        NotFoundError: the user has no list.
    """
    levels = run.config.levels if level == "both" else [level]
    lists = {one: run.candidates(one, user_id=user_id) for one in levels}
    as_of = next(iter(lists.values()))[columns.AS_OF][0]
    return {
        "user_id": user_id,
        "as_of": as_of.isoformat(timespec="seconds"),
        "events": run.events(user_id, before=as_of, limit=limit),
        **{PLURAL[one]: _to_rows(run, lists[one].head(limit).to_dicts()) for one in levels},
    }


def _to_rows(run: forecart.Run, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = [{key: row[key] for key in row if key not in (columns.USER_ID, columns.AS_OF)} for row in rows]
    return [
        row | ({columns.TITLE: run.titles.get(row[columns.ITEM_ID])} if columns.ITEM_ID in row else {})
        for row in shown
    ]


def _events_table(events: list[dict[str, Any]]) -> Table:
    table = Table("when", "event", "advertiser", "product", title="recent events", title_justify="left")
    for event in events:
        item = event[columns.TITLE] or event[columns.ITEM_ID] or ""
        when = event[columns.OCCURRED_AT][:16].replace("T", " ")
        table.add_row(when, event[columns.EVENT_TYPE], _plain(event[columns.ADVERTISER_ID]), _plain(item))
    return table


def _list_table(plural: str, rows: list[dict[str, Any]]) -> Table:
    id_column = columns.ADVERTISER_ID if plural == "advertisers" else columns.ITEM_ID
    table = Table(title=f"next {plural}", title_justify="left")
    table.add_column("", justify="right")
    table.add_column(plural[:-1])
    table.add_column("score", justify="right")
    table.add_column("before")
    for row in rows:
        name = row.get(columns.TITLE) or row[id_column]
        known = "yes" if row[columns.IS_REPEAT] else ""
        table.add_row(str(row[columns.RANK]), _plain(name), f"{row[columns.SCORE]:.3f}", known)
    return table


def _plain(text: str) -> Text:
    """Ids and titles are other people's words: nothing in them is markup or steers the terminal."""
    return Text(to_printable(text))
