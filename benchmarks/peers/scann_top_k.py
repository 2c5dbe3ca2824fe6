"""Serves ScaNN: `python benchmarks/peers/scann_top_k.py ITEMS.npy USERS.npy K FOUND.npy`, on one thread.

Builds as ScaNN's documentation says for inner products (a tree, 2 dimensions a block of 4-bit codes with
anisotropic loss, scored again), and prints the CPU-seconds of it. Then, for each line `{"leaves": L,
"reorder": R}` of standard input, searches all users in one batch, writes the places found to FOUND.npy and
prints the CPU-seconds of the search. For `benchmarks.retrieval_frontier`; the environment is made with `pip
install scann`.
"""

import json
import sys
import time
from importlib import metadata

import numpy as np
import scann

items, users = (np.load(path, allow_pickle=False) for path in sys.argv[1:3])
top_k, path = int(sys.argv[3]), sys.argv[4]
began_s = time.process_time()
searcher = (
    scann.scann_ops_pybind.builder(items, top_k, "dot_product")
    .set_n_training_threads(1)
    .tree(num_leaves=2 * int(len(items) ** 0.5), num_leaves_to_search=100, training_sample_size=250_000)
    .score_ah(2, anisotropic_quantization_threshold=0.2)
    .reorder(200)
    .build()
)
line = {"build_s": time.process_time() - began_s, "version": metadata.version("scann")}
print(json.dumps(line), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    began_s = time.process_time()
    place, _ = searcher.search_batched(
        users, top_k, pre_reorder_num_neighbors=asked["reorder"], leaves_to_search=asked["leaves"]
    )
    taken_s = time.process_time() - began_s
    np.save(path, place.astype(np.int64))
    print(json.dumps({"s": taken_s}), flush=True)
