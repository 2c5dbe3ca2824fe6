"""`forecart bench`: how the models do on a file, by the protocol of papers or by a cut in time."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from forecart import artifacts
from forecart.api import require_training
from forecart.cli.proposal import propose
from forecart.cli.run import evaluate
from forecart.cli.terminal import JsonOption, QuietOption, examples, make_console, print_json, told
from forecart.errors import ConfigError
from forecart.events.guess import guess_config


class Protocol(StrEnum):
    """How past and future are told apart."""

    LOO = "loo"
    WINDOW = "window"


SuccessorsOption = Annotated[
    str, typer.Option(help='loo: settings of the successor term as JSON, likewise; {"weight": 0}: none.')
]
AblateOption = Annotated[
    bool,
    typer.Option(
        "--ablate-encoder",
        help="loo: show what a summary in place of the encoder reaches too: summary_only, one seed.",
    ),
]
CONFIG_FILE = "forecart.toml"
_TITLES = {"seen_filtered": "seen items left out", "seen_kept": "seen items ranked too"}
_HEADINGS = {"hit_rate_at_10": "HR@10", "ndcg_at_10": "NDCG@10", "recall_at_100": "Recall@100"}


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "forecart bench sequences.parquet --protocol loo --validation",
            "forecart bench sequences.csv --protocol loo --seeds 5 --json",
            "forecart bench sequences.csv --protocol loo --successors '{\"weight\": 0}'",
            "forecart bench events.csv --protocol window",
        )
    )(bench)


def bench(  # noqa: PLR0913  (the options of the command)
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Sequences or a log (below).")],
    protocol: Annotated[Protocol, typer.Option(help="`loo` or `window` (below).")] = Protocol.LOO,
    validation: Annotated[
        bool, typer.Option("--validation", help="loo: rank the last event but one; choose settings by it.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="loo: models to train; the spread is printed.")] = 1,
    model: Annotated[str, typer.Option(help="loo: settings of the model as JSON, over the defaults.")] = "{}",
    training: Annotated[str, typer.Option(help="loo: settings of the training as JSON, likewise.")] = "{}",
    successors: SuccessorsOption = "{}",
    ablate_encoder: AblateOption = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the run.  [default: runs/bench-FILE-PROTOCOL]"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the models on a file of yours, or on one that papers report.

    loo reads sequences: Parquet or CSV with the columns user_id, item_id and pos (the order). The last
    event of each user is predicted from those before it, every item is ranked, and the figures stand beside
    simple baselines, once with seen items left out and once with them.

    With loo the score has a successor term: counts of what followed a user's latest events in all sequences,
    `weight` times log(1 + sum / `floor`), in units of the cosine. It is not trained: other settings of it
    train no model again.

    window reads a log as `forecart init` does, guesses what the columns mean and where to cut, and measures
    next advertiser and next product over the days after the cut. What was guessed stands in forecart.toml in
    the run's folder; change it there and run again.

    An interrupted run goes on where it stopped; what is complete is not done again.
    """
    folder = output or Path("runs") / f"bench-{file.name.partition('.')[0]}-{protocol}"
    require_training()
    if protocol is Protocol.WINDOW:
        if validation or ablate_encoder or seeds != 1 or {model, training, successors} != {"{}"}:
            raise ConfigError(
                "--validation, --seeds, --model, --training, --successors and --ablate-encoder are for "
                f"--protocol loo, window arrived: change what is written to {folder / CONFIG_FILE}, and run "
                "again"
            )
        _bench_window(file, folder, as_json=as_json, quiet=quiet)
        return
    from forecart.bench import LeaveOneOut

    protocol_of_papers = LeaveOneOut(
        is_validation=validation,
        num_seeds=seeds,
        model=_read_settings(model, "--model"),
        training=_read_settings(training, "--training"),
        successors=_read_settings(successors, "--successors"),
        ablate_encoder=ablate_encoder,
    )
    with told(quiet=quiet) as reporter:
        result = protocol_of_papers.run(file, folder, reporter=reporter)
    print_json({"folder": folder, **result}) if as_json else print_sequences(result)


def _bench_window(file: Path, folder: Path, *, as_json: bool, quiet: bool) -> None:
    path = folder / CONFIG_FILE
    if not path.exists():
        guess = guess_config(file, None)
        artifacts.write_text(path, propose(guess, file, None, path)[1])
        for sentence in [] if quiet else guess.sentences:
            typer.echo(f"guessed: {sentence}", err=True)
    evaluate(str(path), output=str(folder), as_json=as_json, quiet=quiet)


def _read_settings(text: str, option: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{option} is JSON, {text!r} is not ({error}): quote it for the shell") from None
    if not isinstance(settings, dict):
        raise ConfigError(f'{option} is a JSON object such as {{"width": 64}}, {text!r} arrived')
    return settings


def print_sequences(result: dict[str, Any]) -> None:
    """Prints what `LeaveOneOut.run` returned: a table with and one without the seen items."""
    console = make_console()
    which = "the last event but one" if result["is_validation"] else "the last event"
    console.print(
        f"{which} of {result['num_users']:,} users, {result['num_items']:,} items ranked; training a model "
        f"took {result['train_s']:.0f} s"
    )
    term = result["settings"]["successors"]
    console.print(f"successor term: weight {term['weight']}, floor {term['floor']} (--successors)")
    for name, title in _TITLES.items():
        if result[name]["mean"]:
            console.print(_build_table(title, result[name]))
        else:
            console.print(f"{title}: no user's ranked event is a new item, there is nothing to measure")
    provenance = result["provenance"]
    console.print(f"{provenance['machine']}; commit {provenance['commit']}; {provenance['command']}")


def _build_table(title: str, one: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right")
    table.add_column("model minus it, NDCG@10")
    for system, values in one["mean"].items():
        difference = one["difference"]["ndcg_at_10"].get(system)
        cell = "" if difference is None else _interval(difference)
        table.add_row(system, *(f"{values[metric]:.4f}" for metric in _HEADINGS), cell)
    if "seeds" in one:
        table.add_row("seed to seed", *(f"{one['seed_to_seed'][metric]:.4f}" for metric in _HEADINGS))
    for metric, values in one.get("seeds", {}).items():
        table.add_row(f"seeds, {_HEADINGS[metric]}", " ".join(f"{value:.4f}" for value in values))
    return table


def _interval(difference: dict[str, float]) -> str:
    return f"{difference['mean']:+.4f} [{difference['ci_low']:+.4f}, {difference['ci_high']:+.4f}]"
