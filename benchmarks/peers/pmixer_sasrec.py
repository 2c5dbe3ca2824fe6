"""SASRec of pmixer/SASRec.pytorch as a peer (`protocol.py`), from a checkout of one's own.

    git clone https://github.com/pmixer/SASRec.pytorch CHECKOUT
    python -m venv PEER; PEER/bin/pip install torch numpy polars pyarrow
    yes | PEER/bin/python benchmarks/peers/pmixer_sasrec.py TRAIN.parquet OUTPUT --checkout CHECKOUT

The model is that of CHECKOUT; the steps are ours, after its own: binary cross-entropy with one negative drawn
from what the user has not done, Xavier's start, Adam, its defaults but for the shape. Negatives are drawn for
a whole batch at once and in this process, which takes less than its own three processes do.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from indexed import ItemNumbers, Row, SequenceLearner, Sequences, mark_seen, pad, shuffled
from protocol import add_shape, build_parser, read_commit, read_rows, read_versions, serve
from torch.nn.functional import binary_cross_entropy_with_logits


def build_model(asked: argparse.Namespace, num_items: int) -> Any:
    """Returns the checkout's model as it is before the first step."""
    sys.path.insert(0, str(asked.checkout / "python"))
    from model import SASRec

    settings = argparse.Namespace(
        device="cpu",
        hidden_units=asked.width,
        maxlen=asked.length,
        num_blocks=asked.num_layers,
        num_heads=asked.num_heads,
        dropout_rate=asked.dropout,
        norm_first=asked.norm_first,
    )
    model = SASRec(0, num_items, settings)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.xavier_normal_(weight.data)
    for table in (model.item_emb, model.pos_emb):
        table.weight.data[0] = 0
    return model


def draw_negatives(is_seen_BN: np.ndarray, length: int, rng: np.random.Generator) -> Row:
    """Returns [B, L] items, uniform over those that are not seen; a user who has seen all gets any."""
    num_users, num_columns = is_seen_BN.shape
    is_seen_BN = is_seen_BN & ~is_seen_BN[:, 1:].all(axis=1, keepdims=True)
    drawn = rng.integers(1, num_columns, (num_users, length))
    user = np.arange(num_users)[:, None]
    while (is_again := is_seen_BN[user, drawn]).any():
        drawn[is_again] = rng.integers(1, num_columns, int(is_again.sum()))
    return drawn


def steps(model: Any, learned_from: Sequences, num_items: int, asked: argparse.Namespace) -> Iterator[float]:
    """Yields the epochs so far after each step."""
    rng = np.random.default_rng(asked.seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=asked.learning_rate, betas=(0.9, 0.98))
    rows = [row for row in learned_from.rows if len(row) > 1]
    for epochs, batch in shuffled(rows, asked.batch_size, rng):
        model.train()
        input_BL = pad([row[:-1] for row in batch], asked.length)
        target_BL = pad([row[1:] for row in batch], asked.length)
        negative_BL = draw_negatives(mark_seen(batch, num_items), asked.length, rng)
        negative_BL[target_BL == 0] = 0
        is_event_BL = torch.from_numpy(target_BL != 0)
        logits = model(None, input_BL, target_BL, negative_BL)
        loss = sum(
            binary_cross_entropy_with_logits(found, torch.full_like(found, label))
            for found, label in zip((one[is_event_BL] for one in logits), (1.0, 0.0), strict=True)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield epochs


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__)
    add_shape(parser)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--norm-first", action="store_true")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    rows = read_rows(asked.train)
    items = ItemNumbers(rows)
    learned_from = items.read(rows)
    model = build_model(asked, len(items))
    every_item = np.arange(len(items) + 1)

    def score(users: Sequence[Row]) -> torch.Tensor:
        model.eval()
        scores: torch.Tensor = model.predict(None, pad(users, asked.length), every_item)
        return scores

    learner = SequenceLearner(
        items, learned_from, steps=steps(model, learned_from, len(items), asked), score=score
    )
    versions = {"checkout": read_commit(asked.checkout), **read_versions(["torch"])}
    serve(asked, learner, versions=versions, num_threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
