"""The tables of `benchmarks.retrieval_index` for docs/benchmarks.md, from what is stored."""

from collections.abc import Iterable
from typing import Any, Final

POOLS: Final = ("all", "novel")
TARGETS: Final = (0.95, 0.99)


def render(result: dict[str, Any]) -> str:
    """Returns the tables as Markdown."""
    provenance = result["provenance"]
    machines = sorted({one["machine"] for one in provenance.values()})
    commits = [f"{one['commit']} ({part})" for part, one in sorted(provenance.items())]
    blocks = [
        f"{result['num_rows']:,} items, width {result['width']}; {'; '.join(machines)}; commits "
        f"{', '.join(commits)}.",
        _exact(result["exact"]),
        _indexes(result["indexes"]),
        _masks(result["masks"]),
        _changes(result["changes"], result["shards"]),
    ]
    return "\n\n".join(blocks)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _exact(exact: dict[str, Any]) -> str:
    rows = []
    for figures in exact.values():
        peer = figures.get("implicit")
        rows.append(
            [
                f"{figures['num_candidates']:,}",
                f"{figures['products_gflop_per_s']:.0f}",
                f"{figures['float32']['users_per_s']:,.0f} ({_share(figures['float32'])})",
                f"{figures['bfloat16']['users_per_s']:,.0f} ({_share(figures['bfloat16'])})",
                f"{figures['bfloat16_recall']:.4f}",
                "not run" if peer is None else f"{peer['users_per_s']:,.0f} ({peer['slower']:.1f} times)",
            ]
        )
    header = ["exact search of the top 100, candidates", "float32 products alone, GFLOP/s"]
    header += ["float32, users/s (share of the products' rate)", "bfloat16, the same", "its recall"]
    return _table([*header, "implicit, users/s (how much slower)"], rows)


def _share(figures: dict[str, float]) -> str:
    return f"{figures['share_of_products']:.0%}".replace("%", " %")


def _indexes(indexes: dict[str, Any]) -> str:
    exact = indexes["exact_target_hit_rate"]
    rows = []
    for name, figures in indexes.items():
        if isinstance(figures, dict):
            memory = "-"
            if "own_memory_mb" in figures:
                memory = f"{figures['own_memory_mb']:.0f} + {figures['mapped_memory_mb']:.0f}"
            rows.append(
                [
                    name,
                    f"{figures['recall_at_100']:.4f}",
                    f"{figures['users_per_s']:,.0f} ({figures['speed_of_first']:.2f})",
                    f"{figures['p50_us']:.0f} / {figures['p99_us']:.0f}",
                    f"{figures['build_s']:.0f}",
                    f"{figures['disk_mb']:.0f}",
                    memory,
                    f"{figures['target_hit_rate']:.3f}",
                ]
            )
    header = ["index", "recall@100", "users/s in a batch (of faiss's)", "one user, p50 / p99, us", "build, s"]
    header += ["on disk, MB", "memory, own + mapped, MB", f"own item listed (exact: {exact:.3f})"]
    return _table(header, rows)


def _masks(masks: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{mask['kind']}, {100 * mask['share']:g} %",
            f"{mask['recall_at_100']:.4f}",
            f"{mask['full_lists_share']:.0%}".replace("%", " %"),
            f"{mask['p50_us']:.0f} / {mask['p99_us']:.0f}",
            f"{mask['p50_of_unmasked']:.2f} / {mask['p99_of_unmasked']:.2f}",
            f"{mask['first_us'] / 1e3:.0f}",
        ]
        for mask in masks
    ]
    header = ["eligible", "recall@100", "full lists", "one user, p50 / p99, us", "times that of no mask"]
    return _table([*header, "first search, ms"], rows)


def _changes(changes: dict[str, Any], shards: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{figures['recall_at_100']:.4f}" if "recall_at_100" in figures else "-",
            f"{figures['users_per_s']:,.0f}",
            f"{figures['p50_us']:.0f} / {figures['p99_us']:.0f}",
        ]
        for name, figures in {**changes, f"{shards['num_shards']} shards, unchanged": shards}.items()
        if isinstance(figures, dict)
    ]
    header = ["a tenth removed, a tenth replaced, a tenth added", "recall@100", "users/s in a batch"]
    return _table([*header, "one user, p50 / p99, us"], rows)


def render_large(result: dict[str, Any]) -> str:
    """Returns the tables of `benchmarks.retrieval_scale` as Markdown."""
    rows = []
    for one in result["sizes"]:
        build, search, exact = one["build"], one["search"], one["exact"]
        rows.append(
            [
                f"{one['num_rows']:,}, {one['codes']}" + (", more lists" if one["lists"] else ""),
                f"{build['stages']['build']['cpu_seconds']:,.0f} ({build['peak_own_mb']:,.0f})",
                f"{build['disk_mb']:,.0f}",
                f"{search['resident_mb']:,.0f} ({search['own_mb']:,.0f})",
                f"{one['recall_at_100']:.4f} ± {one['recall_error']:.4f} ({one['num_recall']})",
                f"{search['lists_read']:,.0f} of {search['num_lists']:,}",
                f"{search['vectors_read']:,.0f}",
                f"{search['users_per_s']:,.0f}",
                f"{search['p50_us']:,.0f} / {search['p99_us']:,.0f}",
                f"{1 / exact['cpu_seconds']:,.1f}",
            ]
        )
    header = ["items, lists of", "build, CPU-s (most own memory, MB)", "on disk, MB"]
    header += ["resident in a process that searches, MB (its own)", "recall@100, standard error (users)"]
    header += [
        "lists read, mean",
        "codes read, mean",
        "users/s in a batch",
        "one user, p50 / p99, us",
        "exact search, users/s",
    ]
    laws = [
        [stage, f"{law['slope']:.2f}", f"{law['seconds_at_a_million']:.3g}"]
        for stage, law in result["laws"].items()
    ]
    growth = ["CPU time of", "grows as items to the power of", "seconds at a million, fitted"]
    return f"{_table(header, rows)}\n\n{_table(growth, laws)}"


def render_compression(result: dict[str, Any]) -> str:
    """Returns the table of `benchmarks.compression` as Markdown."""
    rows = [["every product in float32", "-", *(f"{result[pool]['model']:.4f}" for pool in POOLS), "-"]]
    for name in result["all"]["systems"]:
        indexes = [cut[name] for cut in result["indexes"].values()]
        cells = [name, f"{min(one['index_recall_at_100'] for one in indexes):.4f}"]
        for pool in POOLS:
            system = result[pool]["systems"][name]
            lost = [f"{100 * system['lost'][bound]:.2f}" for bound in ("mean", "ci_low", "ci_high")]
            cells.append(f"{system['recall_at_100']:.4f} ({lost[0]} % [{lost[1]}, {lost[2]}])")
        rows.append([*cells, f"{indexes[0]['disk_mb']:.0f}"])
    header = ["retrieved from", "recall@100 of the index, least of the cuts"]
    header += [f"Recall@100, {pool} (lost of the first)" for pool in POOLS]
    return _table([*header, "on disk, MB"], rows)


def render_frontier(result: dict[str, Any]) -> str:
    """Returns the table of `benchmarks.retrieval_frontier` as Markdown."""
    rows = []
    for name, system in sorted(result["systems"].items()):
        shown = f"{name} {system['version']}" if "version" in system else name
        cells = [_fastest(system["points"], target) for target in TARGETS]
        disk = f"{system['disk_mb']:.0f}" if "disk_mb" in system else "-"
        rows.append([shown, *cells, f"{system['build_s']:.0f}", disk])
    header = ["index", *(f"users/s at recall@100 {target} (effort, recall)" for target in TARGETS)]
    return _table([*header, "build, s", "on disk, MB"], rows)


def _fastest(points: list[dict[str, Any]], target: float) -> str:
    enough = [point for point in points if point["recall_at_100"] >= target]
    if not enough:
        return f"not reached ({max(point['recall_at_100'] for point in points):.4f})"
    best = max(enough, key=lambda point: point["users_per_s"])
    return f"{best['users_per_s']:,.0f} ({best['effort']}; {best['recall_at_100']:.4f})"
