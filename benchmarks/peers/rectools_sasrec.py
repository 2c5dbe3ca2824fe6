"""RecTools' transformer as a peer: trains round by round, writes everyone's list after each. Own environment.

    python -m venv PEER; PEER/bin/pip install torch "rectools[torch]" polars pyarrow
    yes | PEER/bin/python benchmarks/peers/rectools_sasrec.py TRAIN.parquet OUTPUT

TRAIN has user_id, item_id, pos. Each line on standard input is a round: some epochs, then
`OUTPUT/lists-R.parquet` with user_id, item_id, rank (from 1) of every user, seen items left out, and a line
of JSON on standard output that says what it took so far: CPU-seconds of fitting alone, seconds of
recommending alone, the peak memory. `--layers ligr` is the paper's eSASRec but for the loss: full softmax by
default, the faster one to any quality on a catalogue of a few thousand items. With `--history NAME=FILE` the
lists are those of the users of FILE, what comes next after it, written to `OUTPUT/lists-R-NAME.parquet` with
the column is_filtered: once with and once without the items of the history (`benchmarks/peer_lists.py`);
num_listed says of how many users.
"""

import argparse
import json
import resource
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import pandas as pd
import polars as pl
import torch
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers

LAYERS = {"ligr": LiGRLayers, "sasrec": SASRecTransformerLayers}


def read_dataset(path: Path) -> Dataset:
    rows = pl.read_parquet(path, columns=["user_id", "item_id", "pos"])
    times = pd.Timestamp("2000-01-01") + pd.to_timedelta(rows["pos"].to_numpy(), unit="h")
    frame = {
        Columns.User: rows["user_id"].to_numpy(),
        Columns.Item: rows["item_id"].to_numpy(),
        Columns.Weight: 1.0,
        Columns.Datetime: times,
    }
    return Dataset.construct(pd.DataFrame(frame))


def build_model(asked: argparse.Namespace) -> SASRecModel:
    def trainer() -> Trainer:
        return Trainer(
            max_epochs=asked.epochs_a_round,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    return SASRecModel(
        n_blocks=asked.num_layers,
        n_heads=asked.num_heads,
        n_factors=asked.width,
        session_max_len=asked.length,
        dropout_rate=asked.dropout,
        lr=asked.learning_rate,
        batch_size=asked.batch_size,
        loss=asked.loss,
        n_negatives=asked.num_negatives,
        transformer_layers_type=LAYERS[asked.layers],
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )


def recommend(
    model: SASRecModel, dataset: Dataset, top_k: int, *, is_filtered: bool, on_unlistable: str = "raise"
) -> pl.DataFrame:
    """Returns user_id, item_id, rank, is_filtered of every user of the dataset.

    A user whose history holds no item that was learned from cannot be listed: `on_unlistable` says whether
    that is an error or such users are left out ("warn").
    """
    users = dataset.user_id_map.external_ids
    found = model.recommend(
        users, dataset, k=top_k, filter_viewed=is_filtered, on_unsupported_targets=on_unlistable
    )
    lists = {name: found[name].to_numpy() for name in ("user_id", "item_id", "rank")}
    return pl.DataFrame(lists).with_columns(is_filtered=pl.lit(is_filtered))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", choices=LAYERS, default="ligr")
    parser.add_argument("--loss", default="softmax")
    parser.add_argument("--num-negatives", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--num-heads", type=int, default=4)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs-a-round", type=int, default=1)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--history", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    seed_everything(asked.seed, verbose=False)
    asked.output.mkdir(parents=True, exist_ok=True)
    dataset = read_dataset(asked.train)
    histories = {
        name: read_dataset(Path(path)) for name, path in (one.split("=", 1) for one in asked.history)
    }
    model, fit_cpu_s = build_model(asked), 0.0
    for number, _ in enumerate(sys.stdin, 1):
        started_s = time.process_time()
        model.fit_partial(dataset, min_epochs=asked.epochs_a_round, max_epochs=asked.epochs_a_round)
        fit_cpu_s += time.process_time() - started_s
        took: dict[str, float] = {}
        num_listed: dict[str, int] = {}
        if histories:
            for name, history in histories.items():
                both = [
                    recommend(model, history, asked.top_k, is_filtered=one, on_unlistable="warn")
                    for one in (False, True)
                ]
                num_listed[name] = both[0]["user_id"].n_unique()
                pl.concat(both).write_parquet(asked.output / f"lists-{number}-{name}.parquet")
        else:
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            lists = recommend(model, dataset, asked.top_k, is_filtered=True)
            took["recommend_s"] = time.perf_counter() - started_s
            took["recommend_cpu_s"] = time.process_time() - started_cpu_s
            lists.drop("is_filtered").write_parquet(asked.output / f"lists-{number}.parquet")
        line = {
            "round": number,
            "epochs": number * asked.epochs_a_round,
            "fit_cpu_s": fit_cpu_s,
            **took,
            "num_users": len(dataset.user_id_map.external_ids),
            "num_listed": num_listed,
            "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
            "versions": {name: metadata.version(name) for name in ("RecTools", "torch", "pytorch-lightning")},
            "num_threads": torch.get_num_threads(),
            "settings": {
                name: value for name, value in vars(asked).items() if isinstance(value, int | float | str)
            },
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
