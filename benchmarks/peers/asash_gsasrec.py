"""gSASRec of asash/gSASRec-pytorch as a peer (`protocol.py`), from a checkout of one's own.

    git clone https://github.com/asash/gSASRec-pytorch CHECKOUT
    python -m venv PEER; PEER/bin/pip install torch numpy polars pyarrow
    yes | PEER/bin/python benchmarks/peers/asash_gsasrec.py TRAIN.parquet OUTPUT --checkout CHECKOUT

The model is that of CHECKOUT; the steps are ours, after its own: gBCE over 256 negatives drawn uniformly for
each event, t of .75, Adam, the settings it has for ml-1m but for the shape. The loss is taken from
log-sigmoids, which is the same function without its clamps and in single precision, and the gradient of a
batch is added up from some users at a time: the same step with less work and memory than its own.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from indexed import ItemNumbers, Row, SequenceLearner, Sequences, pad, shuffled
from protocol import add_shape, build_parser, read_commit, read_rows, read_versions, serve
from torch.nn.functional import logsigmoid


def build_model(asked: argparse.Namespace, num_items: int) -> Any:
    """Returns the checkout's model as it is before the first step."""
    sys.path.insert(0, str(asked.checkout))
    from gsasrec import GSASRec

    return GSASRec(
        num_items,
        sequence_length=asked.length,
        embedding_dim=asked.width,
        num_heads=asked.num_heads,
        num_blocks=asked.num_layers,
        dropout_rate=asked.dropout,
    )


def generalised_bce(logit_MN: torch.Tensor, *, sampled_share: float, calibration: float) -> torch.Tensor:
    """Returns the sum over rows of -(beta log s(positive) + sum of log(1 - s(negative))) / (1 + negatives).

    s is the sigmoid and beta = 1 - t (1 - share): with t = 0 this is plain binary cross-entropy, with t = 1
    the positive's part is as small as the share of the catalogue that was drawn.

    Args:
        logit_MN: the positive first, then the negatives.
        sampled_share: negatives over the other items of the catalogue.
        calibration: t.

    Source: Petrov and Macdonald, gSASRec, RecSys 2023.
    """
    beta = 1 - calibration * (1 - sampled_share)
    positive_M, negative_MN = logit_MN[:, 0], logit_MN[:, 1:]
    loss_M = beta * logsigmoid(positive_M) + logsigmoid(-negative_MN).sum(-1)
    return -loss_M.sum() / logit_MN.shape[1]


def score_events(model: Any, padded: torch.Tensor, num_items: int, num_negatives: int) -> torch.Tensor:
    """Returns logits [M, 1 + negatives] of the M events that follow another, what came first.

    Args:
        model: the checkout's.
        padded: [B, L + 1], `num_items` + 1 where there is nothing.
        num_items: of the catalogue.
        num_negatives: drawn for each event.
    """
    input_BL, target_BL = padded[:, :-1], padded[:, 1:]
    negative_BLN = torch.randint(1, num_items + 1, (*target_BL.shape, num_negatives))
    hidden_BLD, _ = model(input_BL)
    candidate_BLND = model.get_output_embeddings()(torch.cat([target_BL[..., None], negative_BLN], -1))
    logit_BLN = torch.einsum("bld,blnd->bln", hidden_BLD, candidate_BLND)
    return logit_BLN[input_BL != num_items + 1]


def steps(model: Any, learned_from: Sequences, num_items: int, asked: argparse.Namespace) -> Iterator[float]:
    """Yields the epochs so far after each step."""
    optimiser = torch.optim.Adam(model.parameters())
    rows = [row for row in learned_from.rows if len(row) > 1]
    for epochs, batch in shuffled(rows, asked.batch_size, np.random.default_rng(asked.seed)):
        model.train()
        padded = torch.from_numpy(pad(batch, asked.length + 1, value=num_items + 1))
        num_events = (padded[:, :-1] != num_items + 1).sum()
        for some in padded.split(asked.users_at_once):
            loss = generalised_bce(
                score_events(model, some, num_items, asked.num_negatives),
                sampled_share=asked.num_negatives / (num_items - 1),
                calibration=asked.calibration,
            )
            (loss / num_events).backward()
        optimiser.step()
        optimiser.zero_grad()
        yield epochs


def main() -> None:
    """Runs the command line."""
    parser = build_parser(__doc__)
    add_shape(parser)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--users-at-once", type=int, default=16, help="of a batch, to need less memory")
    parser.add_argument("--num-negatives", type=int, default=256)
    parser.add_argument("--calibration", type=float, default=0.75, help="t of the paper")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    rows = read_rows(asked.train)
    items = ItemNumbers(rows)
    learned_from = items.read(rows)
    model = build_model(asked, len(items))

    def score(users: Sequence[Row]) -> torch.Tensor:
        model.eval()
        hidden_BLD, _ = model(torch.from_numpy(pad(users, asked.length, value=len(items) + 1)))
        weight_ND = model.get_output_embeddings().weight[: len(items) + 1]
        scores: torch.Tensor = hidden_BLD[:, -1] @ weight_ND.T
        return scores

    learner = SequenceLearner(
        items, learned_from, steps=steps(model, learned_from, len(items), asked), score=score
    )
    versions = {"checkout": read_commit(asked.checkout), **read_versions(["torch"])}
    serve(asked, learner, versions=versions, num_threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
