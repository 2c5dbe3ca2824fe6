"""The tables of `benchmarks.retrieval_index` for docs/benchmarks.md, from what is stored."""

from collections.abc import Iterable
from typing import Any


def render(result: dict[str, Any]) -> str:
    """Returns the tables as Markdown."""
    blocks = [
        f"{result['num_rows']:,} items, width {result['width']}; {result['provenance']['machine']}; commit "
        f"{result['provenance']['commit']}.",
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
    return str(result["laws"])
