"""What each choice is worth, on validation: `python -m benchmarks.ablations complete_journey`.

Trains the default and one variant after another, each different from it in one thing, and writes what they
reach to `results/ablations-DATA.json` as soon as it is known; what is there with the same settings is not
trained again. `complete_journey` are the next advertisers of the four November cuts, weights learned before;
`FILE.parquet` with user_id, item_id and pos are sequences, the last event but one. `--render` prints
docs/ablations.md from the stored results and trains nothing. No test event is scored here.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import RESULTS
from forecart import artifacts, bench
from forecart.config import RunConfig, load_config, validate_config
from forecart.evaluation.provenance import read_provenance
from forecart.observe import ConsoleReporter, Reporter
from forecart.workflow import Workflow

DEFAULT: Final = "default"
NOVEMBER: Final = ["2017-11-01", "2017-11-08", "2017-11-15", "2017-11-22"]
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """The default with some settings changed."""

    name: str
    model: Settings = field(default_factory=dict)
    training: Settings = field(default_factory=dict)


def sampled(name: str, **loss: Any) -> Variant:
    """Returns the variant with a sampled loss: mixed streams and 512 draws where nothing else is said."""
    return Variant(name, training={"loss": {"kind": "sampled", "num_negatives": 512, **loss}})


# Pool or slice of the evaluation, and metric.
COMPLETE_JOURNEY_COLUMNS: Final = {
    "Recall@10": ("all", "recall_at_10"),
    "Recall@20": ("all", "recall_at_20"),
    "Recall@100": ("all", "recall_at_100"),
    "novel @100": ("novel", "recall_at_100"),
    "tail @100": ("tail", "recall_at_100"),
    "P90 coverage": ("all", "p90_coverage"),
}
SEQUENCE_COLUMNS: Final = {
    "HR@10": ("novel", "hit_rate_at_10"),
    "NDCG@10": ("novel", "ndcg_at_10"),
    "Recall@100": ("novel", "recall_at_100"),
}
_FRONTIER: Final = tuple(
    sampled(f"alpha_pos {positive:g}, alpha_neg {negative:g}", alpha_pos=positive, alpha_neg=negative)
    for positive in (0.0, 0.5, 1.0)
    for negative in (0.0, 0.5, 1.0)
)
COMPLETE_JOURNEY: Final = (
    *_FRONTIER,
    sampled("negatives: in_batch", negatives="in_batch"),
    sampled("negatives: sampled", negatives="sampled"),
    sampled("negatives: 4,096", num_negatives=4096),
    Variant("no encoder", model={"num_layers": 0}),
    Variant("no summary", model={"use_summary": False}),
    Variant("no own history", model={"use_own_history": False}),
    Variant("no content", model={"content": "none"}),
    Variant("no co-conversion vectors", model={"collaborative_width": 0}),
    Variant("hashed ids", model={"id_embedding": "hashed"}),
    Variant("a table of ids", model={"id_embedding": "table"}),
    Variant("length 10", model={"history_length": 10}),
    Variant("length 200", model={"history_length": 200}),
    Variant("pooling: mean", model={"pooling": "mean"}),
    Variant("pooling: last", model={"pooling": "last"}),
    Variant("attention fades", model={"position_bias": "alibi"}),
    Variant("2 layers", model={"num_layers": 2}),
    Variant("objective: next", training={"objective": "next"}),
    Variant("no averaged weights", training={"average_decay": 0.0}),
    Variant("rows weigh by positives", training={"loss": {"row_weighting": "positive"}}),
)
SEQUENCES: Final = (
    Variant("attention does not fade", model={"position_bias": "none"}),
    Variant("hashed ids", model={"id_embedding": "hashed", "id_scale": 1.0}),
    Variant("no dropout on events", model={"event_dropout": 0.0}),
    Variant("dropout .2", model={"dropout": 0.2}),
    Variant("prior of shares", model={"prior": "shares"}),
    Variant("width 64", model={"width": 64}),
    Variant("1 layer", model={"num_layers": 1}),
    Variant("length 10", model={"history_length": 10}),
    Variant("no averaged weights", training={"average_decay": 0.0}),
    Variant("4,096 sampled negatives", training={"loss": {"kind": "sampled", "num_negatives": 4096}}),
)


@dataclass(frozen=True)
class Data:
    """What a table of variants is of.

    Attributes:
        name: of the table and its file.
        sequences: a file of sequences; None for Complete Journey.
    """

    name: str
    sequences: Path | None = None

    @property
    def variants(self) -> tuple[Variant, ...]:
        return SEQUENCES if self.sequences else COMPLETE_JOURNEY

    @property
    def columns(self) -> Mapping[str, tuple[str, str]]:
        return SEQUENCE_COLUMNS if self.sequences else COMPLETE_JOURNEY_COLUMNS

    def config(self, variant: Variant, folder: Path) -> RunConfig:
        """Returns the run of a variant."""
        if self.sequences:
            events = folder / "log.parquet"
            sequences = bench.read_sequences(self.sequences)
            bench.write_events(sequences, events)
            model, training = bench.choose_settings(sequences)
            return bench.build_config(
                events,
                name=self.name,
                cut=bench.BEFORE_LAST,
                model={**model, **variant.model},
                training={**training, **variant.training},
            )
        tree = load_config("demo").model_dump(mode="json")
        tree["split"] |= {"as_of": NOVEMBER[0], "test_cuts": NOVEMBER}
        tree["next_product"]["is_enabled"] = False
        target = tree["next_advertiser"]
        target["ablate_encoder"] = False
        target["model"] |= variant.model
        target["training"] |= variant.training
        return validate_config(tree, where="an ablation")


def measure(data: Data, variant: Variant, folder: Path, *, reporter: Reporter) -> dict[str, Any]:
    """Returns what a variant reaches, and what it reaches more than the default that lies in `folder`."""
    default = Workflow(data.config(Variant(DEFAULT), folder), folder / DEFAULT, reporter=reporter)

    def beside(_: Workflow) -> list[Any]:
        if variant.name == DEFAULT:
            return []
        return [replace(default.scorer("advertiser"), name=DEFAULT)]

    place = folder / variant.name.replace(" ", "-").replace(":", "")
    config = data.config(variant, folder)
    run = bench.run_advertisers(config, place, baselines=(), reporter=reporter, more=beside)
    values, differences = {}, {}
    for heading, (pool, metric) in data.columns.items():
        table = run.tables[pool] if pool in run.tables else run.tables["slices"][pool]
        values[heading] = table["model"].get(metric)
        if difference := table["difference"].get(metric, {}).get(DEFAULT):
            differences[heading] = [difference["mean"], difference["ci_low"], difference["ci_high"]]
    return {
        **asdict(variant),
        "values": values,
        "differences": differences,
        "train_s": run.train_s,
        "provenance": read_provenance(),
    }


def run_variants(
    data: Data, folder: Path, *, names: Sequence[str], results: Path, reporter: Reporter
) -> None:
    """Trains what is not stored yet, the default first, and stores each result."""
    path = results / f"ablations-{data.name}.json"
    stored: list[dict[str, Any]] = artifacts.read_json(path) if path.exists() else []
    wanted = [one for one in data.variants if not names or one.name in names]
    for variant in [Variant(DEFAULT), *wanted]:
        if any(asdict(variant).items() <= record.items() for record in stored):
            continue
        record = measure(data, variant, folder, reporter=reporter)
        stored = [one for one in stored if one["name"] != variant.name] + [record]
        artifacts.write_json(path, stored)
        print(variant.name, record["values"], flush=True)


def render(results: Path = RESULTS) -> str:
    """Returns docs/ablations.md: one table per stored file."""
    lines = [
        "# Ablations",
        "",
        "This is what `python -m benchmarks.ablations --render` prints of the runs that the same command,",
        "with the name of the data, has stored in `benchmarks/results`. A row is the default with one thing",
        "changed, one seed, measured on **validation**; in brackets the difference to the default with its",
        "95 % interval, paired by user. A difference whose interval holds 0 decides nothing.",
    ]
    for path in sorted(results.glob("ablations-*.json")):
        stored = artifacts.read_json(path)
        headings = list(
            COMPLETE_JOURNEY_COLUMNS if path.stem.endswith("complete_journey") else SEQUENCE_COLUMNS
        )
        lines += ["", f"## {path.stem.removeprefix('ablations-')}", ""]
        lines += [_row(["", *headings, "training, s"]), _row(["---"] * (len(headings) + 2))]
        lines += [_row(_cells(record, headings)) for record in stored]
        commits = sorted({record["provenance"]["commit"] for record in stored})
        lines += ["", f"{stored[0]['provenance']['machine']}; commits {', '.join(commits)}."]
    return "\n".join(lines) + "\n"


def _cells(record: dict[str, Any], headings: Sequence[str]) -> list[str]:
    cells = [record["name"]]
    for heading in headings:
        value, difference = record["values"][heading], record["differences"].get(heading)
        cell = "-" if value is None else f"{value:.4f}"
        if difference is not None:
            mean, low, high = difference
            cell += f" ({mean:+.4f} [{low:+.4f}, {high:+.4f}])"
        cells.append(cell)
    return [*cells, f"{record['train_s']:.0f}"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="complete_journey, or a Parquet file of sequences")
    parser.add_argument("--name", help="of a file's table; its folder's name by default")
    parser.add_argument("--only", nargs="*", default=[], help="names of variants; all by default")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of what is stored")
    parser.add_argument("--render", action="store_true", help="print the page of what is stored")
    asked = parser.parse_args()
    if asked.data:
        sequences = None if asked.data == "complete_journey" else Path(asked.data)
        data = Data(asked.name or (sequences.resolve().parent.name if sequences else asked.data), sequences)
        folder = asked.output / data.name
        run_variants(data, folder, names=asked.only, results=asked.results, reporter=ConsoleReporter())
    if asked.render:
        print(render(asked.results), end="")
    if not asked.data and not asked.render:
        parser.error("DATA or --render is needed: complete_journey, or a Parquet file of sequences")


if __name__ == "__main__":
    main()
