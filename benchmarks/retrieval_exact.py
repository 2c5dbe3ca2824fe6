"""Exact search against its products alone and a peer's, in turns: a part of `benchmarks.retrieval_index`."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from forecart import artifacts
from forecart.retrieval.index.group_max import GroupMaxScan
from forecart.retrieval.index.tuning import index_recall_at_k
from forecart.sequences.vocabulary import FIRST_INDEX

TOP_K: Final = 100
BLOCKS: Final = ((512, 1024), (512, 4096), (256, 4096))
"""Users and rows of the blocks that products are timed in; the fastest counts."""
PEER: Final = Path(__file__).parent / "peers" / "implicit_top_k.py"


@dataclass(frozen=True)
class Race:
    """How exact search is timed.

    Attributes:
        folder: of files for the peer.
        rounds: of everything.
        peer: Python of implicit's environment; None without.
    """

    folder: Path
    rounds: int
    peer: str | None


def seconds(run: Callable[[], Any]) -> float:
    """CPU time, of one thread: what others do on the machine is not in it."""
    started = time.process_time()
    run()
    return time.process_time() - started


def in_turns(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs everybody once, then in turns: what each says, by round."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(run())
    return taken


def products(vector_ND: npt.NDArray[np.float32], user_BD: npt.NDArray[np.float32], block: Any) -> float:
    """Returns the seconds of the products alone: blocks of scores are overwritten."""
    num_users, num_rows = block
    vectors, users = torch.from_numpy(vector_ND), torch.from_numpy(user_BD)
    score = torch.empty(min(num_rows, len(vectors)), min(num_users, len(users)))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    started = time.process_time()
    for at in range(0, len(users), num_users):
        user_DB = users[at : at + num_users].T.contiguous()
        for first in range(0, len(vectors), num_rows):
            rows = vectors[first : first + num_rows]
            torch.mm(rows, user_DB, out=score[: len(rows), : user_DB.shape[1]])
    taken = time.process_time() - started
    torch.set_float32_matmul_precision(before)
    return taken


def measure_exact(
    vector_ND: npt.NDArray[np.float32], user_BD: npt.NDArray[np.float32], race: Race
) -> dict[str, Any]:
    """Exact search of users, top 100 included, against the products and the peer: users/s and shares."""
    candidate_N = np.arange(FIRST_INDEX, FIRST_INDEX + len(vector_ND), dtype=np.int32)
    runs: dict[str, Callable[[], float]] = {
        f"products {users}x{rows}": lambda block=(users, rows): products(vector_ND, user_BD, block)
        for users, rows in BLOCKS
    }
    for name, is_bfloat16 in (("float32", False), ("bfloat16", True)):
        scan = GroupMaxScan(is_bfloat16)
        runs[name] = lambda scan=scan: seconds(lambda: scan(vector_ND, candidate_N, user_BD, top_k=TOP_K))
    num_peer = len(user_BD)
    if race.peer:
        # A share of the users is enough: it searches them in batches of its own.
        num_peer = max(64, len(user_BD) // 4)
        files = [race.folder / "items.npy", race.folder / "users.npy"]
        for path, array in zip(files, (vector_ND, user_BD[:num_peer]), strict=True):
            artifacts.write_npy(path, array)
        command = [race.peer, str(PEER), *map(str, files), str(TOP_K)]
        runs["implicit"] = lambda: float(
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["s"]
        )
    taken = in_turns(runs, race.rounds)
    best = min((name for name in runs if name.startswith("products")), key=lambda name: median(taken[name]))
    found = {
        name: GroupMaxScan(name == "bfloat16")(vector_ND, candidate_N, user_BD, top_k=TOP_K)
        for name in ("float32", "bfloat16")
    }
    flop = 2.0 * vector_ND.size * len(user_BD)
    figures: dict[str, Any] = {
        "num_candidates": len(vector_ND),
        "num_users": len(user_BD),
        "products_block": best.removeprefix("products "),
        "products_gflop_per_s": flop / median(taken[best]) / 1e9,
        "bfloat16_recall": float(index_recall_at_k(found["bfloat16"], found["float32"]).mean()),
    }
    for name in ("float32", "bfloat16"):
        figures[name] = {
            "users_per_s": len(user_BD) / median(taken[name]),
            "share_of_products": median(a / b for a, b in zip(taken[best], taken[name], strict=True)),
        }
    if race.peer:
        ratios = zip(taken["implicit"], taken["float32"], strict=True)
        figures["implicit"] = {
            "users_per_s": num_peer / median(taken["implicit"]),
            "slower": median((a / num_peer) / (b / len(user_BD)) for a, b in ratios),
        }
    return figures
