"""Times the exact search of implicit: `python benchmarks/peers/implicit_top_k.py ITEMS.npy USERS.npy K`.

Prints the CPU-seconds of one search of all users on one thread, after one that is not counted. For
`benchmarks.retrieval_index`; the environment is made with `pip install implicit`.
"""

import json
import sys
import time

import numpy as np
from implicit.cpu.topk import topk

items, users = (np.load(path, allow_pickle=False) for path in sys.argv[1:3])
topk(items, users[:8], int(sys.argv[3]), num_threads=1)
started = time.process_time()
topk(items, users, int(sys.argv[3]), num_threads=1)
print(json.dumps({"s": time.process_time() - started}))
