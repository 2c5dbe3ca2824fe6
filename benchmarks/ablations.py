"""What each choice is worth, on validation: `python -m benchmarks.ablations complete_journey`.

Trains the default and one variant after another, each different in one thing from what it is held against,
and writes what they reach to `results/ablations-DATA.json` as soon as it is known. What is there is not
trained again, unless its settings, those of what it is held against, or the sequences have changed: then it
is dropped. `complete_journey` are the next advertisers of the four November cuts, weights learned before;
`FILE.parquet` with user_id, item_id and pos are sequences, the last event but one. `--render` prints
docs/ablations.md from the stored results and trains nothing. No test event is scored here.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks.complete_journey import NOVEMBER
from benchmarks.figures import RESULTS
from forecart import artifacts, bench
from forecart.config import RunConfig, load_config, validate_config
from forecart.evaluation.protocol import Scorer
from forecart.evaluation.provenance import read_provenance
from forecart.observe import ConsoleReporter, Reporter
from forecart.training.trained_model import TRAINED_FORMAT
from forecart.workflow import Workflow

COMPLETE_JOURNEY: Final = "complete_journey"
DEFAULT: Final = "default"
SAMPLED: Final = "sampled softmax"
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """The default with some settings changed.

    Attributes:
        name: in the table, and of its folder.
        model: what is changed of the model.
        training: what is changed of the training.
        successors: what is changed of the successor term.
        labels: what is changed of the label contract: of training alone, so `cuts_per_user`.
        against: name of the variant from which it differs in one thing; the default's is its own.
    """

    name: str
    model: Settings = field(default_factory=dict)
    training: Settings = field(default_factory=dict)
    successors: Settings = field(default_factory=dict)
    labels: Settings = field(default_factory=dict)
    against: str = DEFAULT


def sampled(name: str, *, against: str = SAMPLED, **loss: Any) -> Variant:
    """Returns the variant with a sampled loss: mixed streams and 512 draws where nothing else is said."""
    return Variant(
        name, training={"loss": {"kind": "sampled", "num_negatives": 512, **loss}}, against=against
    )


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
    if (positive, negative) != (0.0, 1.0)  # SAMPLED itself
)
COMPLETE_JOURNEY_VARIANTS: Final = (
    Variant(DEFAULT),
    sampled(SAMPLED, against=DEFAULT),
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
    # Of a row `next` learns one label where the others learn the week's 12: a cut a day in place of one a
    # week, and 5 epochs in place of 3, make 914,000 of them in all; all_action learns 908,000.
    Variant(
        "objective: next, as many labels",
        training={"objective": "next", "cut_stride_days": 1, "num_epochs": 5},
        labels={"cuts_per_user": 140},
    ),
    Variant("objective: dense_all_action", training={"objective": "dense_all_action"}),
    Variant("no averaged weights", training={"average_decay": 0.0}),
    Variant("own-history term as slow as the rest", training={"own_rate_factor": 1.0}),
    Variant("successor term", successors={"weight": 0.05}),
    Variant("rows weigh by positives", training={"loss": {"row_weighting": "positive"}}),
)
SEQUENCE_VARIANTS: Final = (
    Variant(DEFAULT),
    Variant("no successor term", successors={"weight": 0.0}),
    Variant("attention does not fade", model={"position_bias": "none"}),
    Variant("hashed ids of full length", model={"id_embedding": "hashed", "id_scale": 1.0}),
    Variant("no dropout on events", model={"event_dropout": 0.0}),
    Variant("dropout .2", model={"dropout": 0.2}),
    Variant("prior of shares", model={"prior": "shares"}),
    Variant("width 64", model={"width": 64}),
    Variant("1 layer", model={"num_layers": 1}),
    # A pass of the encoder reads so many events: of more cuts, the first would come before all of them.
    Variant("length 10", model={"history_length": 10}, training={"cuts_per_history": 10}),
    Variant("no averaged weights", training={"average_decay": 0.0}),
    Variant("4,096 sampled negatives", training={"loss": {"kind": "sampled", "num_negatives": 4096}}),
)


@dataclass(frozen=True)
class AblationData:
    """What a table of variants is of.

    Attributes:
        name: of the table and its file.
        folder: of the runs.
        sequences: a file of sequences; None for Complete Journey.
    """

    name: str
    folder: Path
    sequences: Path | None = None

    @property
    def variants(self) -> Sequence[Variant]:
        """The default, then the others; each after what it is held against."""
        return SEQUENCE_VARIANTS if self.sequences else COMPLETE_JOURNEY_VARIANTS

    def variant(self, name: str) -> Variant:
        """Returns the variant of a name."""
        return next(one for one in self.variants if one.name == name)

    @cached_property
    def default(self) -> RunConfig:
        """The run of the default. The log that all variants read is written with it."""
        if self.sequences:
            events = self.folder / "log.parquet"
            sequences = bench.read_sequences(self.sequences)
            bench.write_events(sequences, events)
            settings = bench.choose_settings(bench.hide_latest(sequences, bench.NUM_PREDICTED))
            return bench.build_config(events, name=self.name, cut=bench.BEFORE_LAST, settings=settings)
        tree = load_config("demo").model_dump(mode="json")
        tree["split"] |= {"as_of": NOVEMBER[0], "test_cuts": NOVEMBER}
        tree["next_product"]["is_enabled"] = False
        tree["next_advertiser"]["ablate_encoder"] = False
        return validate_config(tree, where="an ablation")

    def config(self, variant: Variant) -> RunConfig:
        """Returns the run of a variant: nothing but its settings differs from the default."""
        tree = self.default.model_dump(mode="json")
        target = tree["next_advertiser"]
        target["model"] |= variant.model
        target["training"] |= variant.training
        target["successors"] |= variant.successors
        tree["labels"] |= variant.labels
        return validate_config(tree, where="an ablation")

    def workflow(self, variant: Variant, reporter: Reporter) -> Workflow:
        """Returns the run of a variant in its folder."""
        place = self.folder / variant.name.replace(" ", "-").replace(":", "")
        return Workflow(self.config(variant), place, reporter=reporter)

    def keys(self) -> dict[str, str]:
        """Returns, by name of the variant, the hash of everything that its record follows from."""
        content = artifacts.hash_file(self.sequences) if self.sequences else None
        configs = {
            one.name: self.config(one).model_dump(mode="json", exclude={"source": {"events"}})
            for one in self.variants
        }
        return {
            one.name: artifacts.hash_value(
                [one.name, configs[one.name], configs[one.against], content, TRAINED_FORMAT]
            )
            for one in self.variants
        }


def measure(data: AblationData, variant: Variant, *, reporter: Reporter) -> dict[str, Any]:
    """Returns what a variant reaches, and what it reaches more than what it is held against.

    Trains both where that is not done yet. A measure that the data does not have is None and has no
    difference; the default has none at all.

    Returns:
        The variant's attributes; `values`, heading -> mean; `differences`, heading -> mean and both ends of
        its interval; seconds of training; provenance.
    """
    reference = data.workflow(data.variant(variant.against), reporter)

    def reference_scorers(_: Workflow) -> list[Scorer]:
        if variant.name == variant.against:
            return []
        reference.learn()
        return [replace(reference.scorer("advertiser"), name=variant.against)]

    workflow = data.workflow(variant, reporter)
    run = bench.run_advertisers(
        workflow.config, workflow.folder, baselines=(), reporter=reporter, more=reference_scorers
    )
    values, differences = {}, {}
    columns = SEQUENCE_COLUMNS if data.sequences else COMPLETE_JOURNEY_COLUMNS
    for heading, (pool, metric) in columns.items():
        table = run.tables[pool] if pool in run.tables else run.tables["slices"][pool]
        values[heading] = table["model"].get(metric)
        if difference := table["difference"].get(metric, {}).get(variant.against):
            differences[heading] = [difference["mean"], difference["ci_low"], difference["ci_high"]]
    return {
        **asdict(variant),
        "values": values,
        "differences": differences,
        "train_s": run.train_s,
        "provenance": read_provenance(),
    }


def run_variants(data: AblationData, *, names: Sequence[str], results: Path, reporter: Reporter) -> None:
    """Trains what is not stored yet, the default first, and stores each result.

    Args:
        data: of the table.
        names: of the variants to run, with what they are held against; none for all.
        results: folder of what is stored.
        reporter: told of progress.
    """
    path = results / f"ablations-{data.name}.json"
    keys = data.keys()
    stored: list[dict[str, Any]] = artifacts.read_json(path) if path.exists() else []
    stored = [record for record in stored if record.get("key") == keys.get(record["name"], "")]
    wanted = {DEFAULT, *(names or keys)}
    wanted |= {data.variant(name).against for name in wanted}
    for variant in data.variants:
        if variant.name not in wanted or any(record["name"] == variant.name for record in stored):
            continue
        record = {**measure(data, variant, reporter=reporter), "key": keys[variant.name]}
        stored = sorted([*stored, record], key=lambda one: list(keys).index(one["name"]))
        artifacts.write_json(path, stored)
        reporter.say(f"{variant.name}: {record['values']}")


def render(results: Path = RESULTS) -> str:
    """Returns docs/ablations.md: one table per stored file."""
    lines = [
        "# Ablations",
        "",
        "This is what `python -m benchmarks.ablations --render` prints of the runs that the same command,",
        "with the name of the data, has stored in `benchmarks/results`. A row is what stands under *against*",
        "with one thing changed, one seed, measured on **validation**; in brackets the difference to it with",
        "its 95 % interval, paired by user. A difference whose interval holds 0 decides nothing. Intervals",
        "are over users, not over seeds, and at 95 % one or two of some thirty rows differ by chance in each",
        "column. *training, s* is wall time on a machine shared with other work: it ranks only what is far",
        "apart.",
    ]
    for path in sorted(results.glob("ablations-*.json")):
        stored = artifacts.read_json(path)
        name = path.stem.removeprefix("ablations-")
        headings = list(COMPLETE_JOURNEY_COLUMNS if name == COMPLETE_JOURNEY else SEQUENCE_COLUMNS)
        lines += ["", f"## {name}", ""]
        lines += [_row(["", "against", *headings, "training, s"]), _row(["---"] * (len(headings) + 3))]
        lines += [_row(_cells(record, headings)) for record in stored]
        commits = sorted({record["provenance"]["commit"] for record in stored})
        lines += ["", f"{stored[0]['provenance']['machine']}; commits {', '.join(commits)}."]
    return "\n".join(lines) + "\n"


def _cells(record: dict[str, Any], headings: Sequence[str]) -> list[str]:
    cells = [record["name"], "" if record["name"] == record["against"] else record["against"]]
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


def _read_data(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> AblationData:
    sequences = None if asked.data == COMPLETE_JOURNEY else Path(asked.data)
    name = COMPLETE_JOURNEY
    if sequences:
        name = asked.name or sequences.resolve().parent.name
        if name == COMPLETE_JOURNEY:
            parser.error(f"{name} is the name of a table that is not of a file: give --name another")
    data = AblationData(name, asked.output / name, sequences)
    known = [variant.name for variant in data.variants]
    if unknown := [one for one in asked.only if one not in known]:
        parser.error(f"--only takes names of variants, {unknown} arrived: there are {', '.join(known)}")
    return data


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
        data = _read_data(asked, parser)
        with ConsoleReporter() as reporter:
            run_variants(data, names=asked.only, results=asked.results, reporter=reporter)
    if asked.render:
        print(render(asked.results), end="")
    if not asked.data and not asked.render:
        parser.error("DATA or --render is needed: complete_journey, or a Parquet file of sequences")


if __name__ == "__main__":
    main()
