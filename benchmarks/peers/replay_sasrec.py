"""RePlay's SasRec as a peer (`protocol.py`).

    python -m venv PEER; PEER/bin/pip install "replay-rec[torch]" polars pyarrow
    yes | PEER/bin/python benchmarks/peers/replay_sasrec.py TRAIN.parquet OUTPUT

`SasRec.from_params` (full softmax) in RePlay's Lightning module with its Adam, its defaults but for the shape
and the batch of 128, for which it has none. A round that ends within an epoch is followed by a new epoch, its
users in another order: Lightning has the loop.
"""

import argparse
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from indexed import ItemNumbers, Row, SequenceLearner, Sequences, pad
from lightning import Callback, LightningModule, Trainer, seed_everything
from protocol import IsOver, add_shape, build_parser, read_rows, read_versions, serve
from replay.data import FeatureHint, FeatureType
from replay.data.nn import TensorFeatureInfo, TensorSchema
from replay.nn.lightning import LightningModule as ReplayModule
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.sequential import SasRec
from torch.utils.data import DataLoader

ITEM = "item_id"


class OneOptimiser(OptimizerFactory):
    """RePlay's Adam, the same in every round: Lightning asks for one each time it begins."""

    made: torch.optim.Optimizer | None = None

    def create(self, parameters: Iterator[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Returns the optimiser of the first call."""
        self.made = self.made or super().create(parameters)
        return self.made


class EndOfRound(Callback):
    """Counts batches and stops the trainer when the round is over."""

    num_batches, epochs = 0, 0.0
    is_over: IsOver

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Called by the trainer."""
        self.num_batches += 1
        self.epochs = self.num_batches / trainer.num_training_batches
        trainer.should_stop = self.is_over(self.epochs)


def build_model(asked: argparse.Namespace, num_items: int) -> SasRec:
    """Returns the model; RePlay's items count from 0 and the one after the last is none."""
    item = TensorFeatureInfo(
        ITEM,
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=asked.width,
        padding_value=num_items,
        cardinality=num_items,
        feature_hint=FeatureHint.ITEM_ID,
    )
    return SasRec.from_params(
        TensorSchema([item]),
        embedding_dim=asked.width,
        num_heads=asked.num_heads,
        num_blocks=asked.num_layers,
        max_sequence_length=asked.length,
        dropout=asked.dropout,
    )


def fill(rows: Sequence[Row], length: int, num_items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns items from 0, and where there are any, both [B, length]."""
    item_BL = torch.from_numpy(pad([row - 1 for row in rows], length, value=num_items))
    return item_BL, item_BL != num_items


class ReplayLearner(SequenceLearner):
    """RePlay by rounds (`protocol.Learner`)."""

    def __init__(self, asked: argparse.Namespace, items: ItemNumbers, learned_from: Sequences) -> None:
        super().__init__(items, learned_from, steps=iter(()), score=self._score)
        self.length = asked.length
        self.model = build_model(asked, len(items))
        self.module = ReplayModule(self.model, OneOptimiser(learning_rate=asked.learning_rate))
        self.loader = DataLoader(
            [row for row in learned_from.rows if len(row) > 1],
            batch_size=asked.batch_size,
            shuffle=True,
            collate_fn=self._collate,
        )
        self.end = EndOfRound()
        self.trainer = Trainer(
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[self.end],
        )

    def learn(self, is_over: IsOver) -> None:
        """Goes on with the fit until the round is over."""
        self.end.is_over = is_over
        self.module.train()
        self.trainer.fit(self.module, self.loader)
        self.epochs = self.end.epochs

    def _collate(self, rows: Sequence[Row]) -> dict[str, Any]:
        item_BL, is_item_BL = fill(rows, self.length + 1, len(self.items))
        return {
            "feature_tensors": {ITEM: item_BL[:, :-1]},
            "padding_mask": is_item_BL[:, :-1],
            "positive_labels": item_BL[:, 1:, None],
            "negative_labels": None,
            "target_padding_mask": is_item_BL[:, 1:, None],
        }

    def _score(self, users: Sequence[Row]) -> torch.Tensor:
        self.module.eval()
        item_BL, is_item_BL = fill(users, self.length, len(self.items))
        found = self.module({"feature_tensors": {ITEM: item_BL}, "padding_mask": is_item_BL})
        return torch.nn.functional.pad(found["logits"], (1, 0))


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__)
    add_shape(parser)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything(asked.seed, verbose=False)
    rows = read_rows(asked.train)
    items = ItemNumbers(rows)
    learner = ReplayLearner(asked, items, items.read(rows))
    versions = read_versions(["replay-rec", "torch", "lightning"])
    serve(asked, learner, versions=versions, num_threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
