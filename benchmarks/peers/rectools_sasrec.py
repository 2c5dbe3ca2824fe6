"""RecTools' transformers as peers (`protocol.py`).

    python -m venv PEER; PEER/bin/pip install torch "rectools[torch]" polars pyarrow
    yes | PEER/bin/python benchmarks/peers/rectools_sasrec.py TRAIN.parquet OUTPUT

`--model sasrec --layers ligr` is the paper's eSASRec but for the loss: full softmax by default, the faster
one to any quality on a catalogue of a few thousand items; `--loss sampled_softmax` is the paper's.
`--model hstu` is RecTools' HSTU without its attention to time: sequences have an order and no times, and the
dates that RecTools asks for are made from it, one hour an event. A round that ends within an epoch is
followed by a new epoch, its users in another order: RecTools has the loop.
"""

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd
import polars as pl
import torch
from protocol import IsOver, add_shape, build_parser, read_rows, read_versions, serve
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import HSTUModel, SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers

LAYERS = {"ligr": LiGRLayers, "sasrec": SASRecTransformerLayers}
MAX_EPOCHS = 10_000
"""More than a round ever has: it ends by itself."""


def read_dataset(rows: pl.DataFrame) -> Dataset:
    """Returns rows (user_id, item_id, pos) as RecTools takes them."""
    times = pd.Timestamp("2000-01-01") + pd.to_timedelta(rows["pos"].to_numpy(), unit="h")
    frame = {
        Columns.User: rows["user_id"].to_numpy(),
        Columns.Item: rows["item_id"].to_numpy(),
        Columns.Weight: 1.0,
        Columns.Datetime: times,
    }
    return Dataset.construct(pd.DataFrame(frame))


class EndOfRound(Callback):
    """Stops the trainer where a function of it says so after a batch.

    RecTools copies its trainer and this with it, but not a function.
    """

    def __init__(self, is_over: Any) -> None:
        self.is_over = is_over

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Called by the trainer."""
        trainer.should_stop = self.is_over(trainer)


def build_model(asked: argparse.Namespace, callback: EndOfRound) -> SASRecModel | HSTUModel:
    """Returns the model as the options ask for it."""

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=MAX_EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[callback],
        )

    settings = {
        "n_blocks": asked.num_layers,
        "n_heads": asked.num_heads,
        "n_factors": asked.width,
        "session_max_len": asked.length,
        "dropout_rate": asked.dropout,
        "lr": asked.learning_rate,
        "batch_size": asked.batch_size,
        "loss": asked.loss,
        "n_negatives": asked.num_negatives,
        "get_trainer_func": trainer,
        "recommend_torch_device": "cpu",
    }
    if asked.model == "hstu":
        return HSTUModel(**settings, relative_time_attention=False)
    return SASRecModel(**settings, transformer_layers_type=LAYERS[asked.layers])


class RecToolsLearner:
    """RecTools by rounds (`protocol.Learner`)."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.learned_from = read_dataset(read_rows(asked.train))
        self.num_batches, self.epochs = 0, 0.0

        def count(trainer: Trainer) -> bool:
            self.num_batches += 1
            self.epochs = self.num_batches / trainer.num_training_batches
            return self.is_over(self.epochs)

        self.model = build_model(asked, EndOfRound(count))

    def prepare(self, rows: pl.DataFrame) -> Dataset:
        """Returns rows as RecTools takes them."""
        return read_dataset(rows)

    def learn(self, is_over: IsOver) -> None:
        """Goes on with the fit until the round is over."""
        self.is_over = is_over
        self.model.fit_partial(self.learned_from, min_epochs=0, max_epochs=MAX_EPOCHS)

    def recommend(self, history: Dataset, *, top_k: int, filters: Sequence[bool]) -> pl.DataFrame:
        """Returns user_id, item_id, rank, is_filtered; who did nothing that was learned from is left out."""
        users, frames = history.user_id_map.external_ids, []
        for is_filtered in filters:
            found = self.model.recommend(
                users, history, k=top_k, filter_viewed=is_filtered, on_unsupported_targets="warn"
            )
            lists = {name: found[name].to_numpy() for name in ("user_id", "item_id", "rank")}
            frames.append(pl.DataFrame(lists).with_columns(is_filtered=pl.lit(is_filtered)))
        return pl.concat(frames)


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__)
    add_shape(parser)
    parser.add_argument("--model", choices=("sasrec", "hstu"), default="sasrec")
    parser.add_argument("--layers", choices=LAYERS, default="ligr", help="of --model sasrec")
    parser.add_argument("--loss", default="softmax")
    parser.add_argument("--num-negatives", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    seed_everything(asked.seed, verbose=False)
    versions = read_versions(["RecTools", "torch", "pytorch-lightning"])
    serve(asked, RecToolsLearner(asked), versions=versions, num_threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
