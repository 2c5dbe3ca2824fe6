"""Quality on single sequences, kept: `python -m benchmarks.quality FILE --name ml-1m --seeds 5`.

`forecart bench FILE --protocol loo` with the figures written to `results/quality-NAME.json`, with machine,
commit and command. FILE is Parquet or CSV with user_id, item_id and pos. With `--validation` nothing is
written: settings are chosen by it, the test is scored once.
"""

from pathlib import Path

from benchmarks.figures import RESULTS, build_parser
from forecart import artifacts
from forecart.bench import LeaveOneOut
from forecart.cli.bench import print_sequences
from forecart.observe import ConsoleReporter


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__, seeds=1, model={}, training={})
    parser.add_argument("file", type=Path, help="sequences: user_id, item_id, pos")
    parser.add_argument("--ablate-encoder", action="store_true", help="and the system without the encoder")
    parser.add_argument("--name", required=True, help="of the data set, in results and output")
    asked = parser.parse_args()
    if not asked.file.exists():
        print(f"skipped: there are no sequences at {asked.file}")
        return
    protocol = LeaveOneOut(
        is_validation=asked.validation,
        num_seeds=asked.seeds,
        model=asked.model,
        training=asked.training,
        ablate_encoder=asked.ablate_encoder,
    )
    folder = asked.output or Path("runs") / f"quality-{asked.name}"
    result = protocol.run(asked.file, folder, reporter=ConsoleReporter())
    print_sequences(result)
    if not asked.validation:
        artifacts.write_json(RESULTS / f"quality-{asked.name}.json", result)


if __name__ == "__main__":
    main()
