"""A report as a run writes it, with figures of the size that a real one has; seeded, no two figures alike."""

import random
from collections.abc import Iterable
from typing import Any

BASELINES = {
    "basket_ease_popularity": 0.002,
    "ranked_ease": -0.0025,
    "basket_popularity": -0.0045,
    "decayed_popularity": -0.011,
    "frequency_popularity": -0.016,
    "ease": -0.02,
    "item_knn": -0.031,
    "markov": -0.06,
    "popularity_all": -0.072,
    "popularity_7d": -0.075,
    "model_no_encoder": -0.0032,
}
RECALL = {
    "next_advertiser": {
        "all": (0.1291, 0.2807, 0.3684, 0.4752, 0.6208, 0.7341),
        "novel": (0.0203, 0.0711, 0.1098, 0.1572, 0.2713, 0.4006),
        "repeat": (0.1624, 0.3502, 0.4588, 0.5907, 0.7601, 0.8903),
    },
    "next_product": {
        "all": (0.0361, 0.0984, 0.1452, 0.2011, 0.2789, 0.3502),
        "novel": (0.0014, 0.0061, 0.0119, 0.0213, 0.0402, 0.0637),
        "repeat": (0.0921, 0.2512, 0.3702, 0.5017, 0.6903, 0.8204),
    },
}
DEPTHS = (1, 5, 10, 20, 50, 100)
CUTS = ("2017-12-01", "2017-12-08", "2017-12-15", "2017-12-22")
SLICES = ("head", "torso", "tail", "without_dominant", "repeat", "novel", "cold_users", "unseen")
EVENT_TYPES = ("checkout", "view", "add_to_cart", "custom")
TITLES = (
    "WHOLE MILK GAL",
    "BANANAS",
    "PASTA SAUCE, TRADITIONAL",
    "Crème brûlée",
    "SOFT DRINKS 12/18&15PK CAN CAR",
    None,
)


def sample_report(*, lead: float = 0.0, seed: int = 7) -> dict[str, Any]:
    """Returns a report whose model is about `lead` further ahead than in the default, which is close."""
    draw = random.Random(seed)
    return {
        "schema_version": 1,
        "name": "Complete Journey",
        "provenance": {
            "forecart": "0.1.0",
            "commit": "bf9e1be4",
            "machine": "2 cores, 24 GB, no accelerator",
            "versions": {"python": "3.11.9", "polars": "1.31.0", "torch": "2.13.0"},
            "command": "forecart run complete_journey.toml",
        },
        "config": {
            "events": {"source": "complete_journey", "max_rejected_share": 0.02},
            "labels": {"positives": {"checkout": 1.0}, "window_days": 7, "max_positives": 32},
            "advertiser_model": {"width": 96, "num_layers": 2, "temperature": 0.07, "alpha_pos": 1.0},
        },
        "as_of": "2017-12-01T00:00:00Z",
        "cuts": [f"{cut}T00:00:00Z" for cut in CUTS],
        "label_window_days": 7,
        "data": _data(draw),
        "training": {level: _training(draw) for level in RECALL},
        "next_advertiser": _level(draw, "next_advertiser", lead),
        "next_product": _level(draw, "next_product", lead + 0.004),
        "calibration": {level: _calibration(draw) for level in RECALL},
        "examples": [_example(draw, user) for user in ("1228", "743", "2070")],
    }


def _calibration(draw: random.Random) -> dict[str, Any]:
    bins = []
    for place in range(1, 9):
        predicted = place**2 / 300 + draw.random() / 1000
        observed = predicted * draw.uniform(0.8, 1.2)
        low, high = observed * draw.uniform(0.8, 0.95), observed * draw.uniform(1.05, 1.2)
        size = draw.randrange(20_000, 30_000)
        bins.append(
            {"predicted": predicted, "observed": observed, "ci_low": low, "ci_high": high, "num_pairs": size}
        )
    sizes = {name: draw.randrange(1000, 90_000) for name in ("num_users", "num_pairs", "num_conversions")}
    return {
        "fitted": {"cuts": ["2017-12-01"], **sizes},
        "test": {
            "cuts": ["2017-12-08", "2017-12-15"],
            **{name: 2 * size for name, size in sizes.items()},
            "predicted_conversions": draw.uniform(1000, 9000),
            "expected_calibration_error": draw.random() / 100,
            "bins": bins,
        },
    }


def _level(draw: random.Random, level: str, lead: float) -> dict[str, Any]:
    tables: dict[str, Any] = {
        pool: _table(draw, recall, lead, 5246) for pool, recall in RECALL[level].items()
    }
    tables["all"] |= {"seeds": _seeds(draw, tables["all"]["model"])}
    for name, values in [("model", tables["all"]["model"]), *tables["all"]["baselines"].items()]:
        assert name
        for k, value in ((1, 0.31), (10, 0.72), (100, 0.96)):
            values[f"index_recall_at_{k}"] = value + draw.uniform(-0.08, 0.01)
    tables["per_cut"] = {
        cut: {pool: _table(draw, recall, lead, 1312) for pool, recall in RECALL[level].items()}
        for cut in CUTS
    }
    tables["slices"] = {
        name: _table(draw, [value * scale for value in RECALL[level]["all"]], lead, 4100)
        for name, scale in zip(SLICES, (1.21, 0.83, 0.31, 0.97, 1.19, 0.28, 0.88, 0.02), strict=True)
    }
    tables["frontier"] = _frontier(draw, RECALL[level]["all"])
    return tables


def _frontier(draw: random.Random, recall: Iterable[float]) -> dict[str, Any]:
    points: list[dict[str, Any]] = []
    for place, name in enumerate(("by score", "popularity 0.3, kept 0.8", "similarity 0.2, kept 0.5")):
        values = {
            f"recall_at_{k}": value * (1 - place / 200) for k, value in zip(DEPTHS, recall, strict=True)
        }
        values |= {"recall_at_100_of_novel": draw.uniform(0.2, 0.4), "p90_coverage": 0.05 * (place + 1)}
        values |= {"gini": draw.uniform(0.9, 0.99), "intra_list_similarity": draw.uniform(0.1, 0.3)}
        change = {metric: -draw.uniform(0.001, 0.002) * place for metric in values}
        ends = {"ci_low": -0.0007, "ci_high": 0.0007}
        difference = {
            metric: {"mean": mean, **{end: mean + half for end, half in ends.items()}}
            for metric, mean in change.items()
        }
        point = {"name": name, "is_listed": place == 0, "is_default": place == 1, "values": values}
        points.append(point | ({"difference": difference} if place else {}))
    return {"num_rows": 5246, "points": points}


def _table(draw: random.Random, recall: Iterable[float], lead: float, rows: int) -> dict[str, Any]:
    model = _measures(draw, recall, 0.0)
    names = list(BASELINES.items())
    # A pool like novel is small: differences shrink with it.
    size = model["recall_at_10"] / 0.37
    baselines = {name: _measures(draw, recall, (gap - lead) * size) for name, gap in names}
    difference: dict[str, Any] = {}
    for metric, value in model.items():
        difference[metric] = {}
        for name, gap in names:
            mean = value - baselines[name][metric]
            half = (0.0016 + abs(gap) / 18) * (1 + 4000 / rows) / 1.7
            error = half / 1.96
            difference[metric][name] = {
                "mean": mean,
                "ci_low": mean - half * draw.uniform(0.95, 1.05),
                "ci_high": mean + half,
                "standard_error": error,
                "minimum_detectable": 2.8 * error,
            }
    interval = {
        name: {
            metric: {"ci_low": value * 0.975, "ci_high": value * 1.024} for metric, value in values.items()
        }
        for name, values in {"model": model, **baselines}.items()
    }
    return {
        "num_rows": rows + draw.randrange(90),
        "num_users": 1900 + draw.randrange(90),
        "num_relevant": rows * 9 + draw.randrange(900),
        "model": model,
        "baselines": baselines,
        "interval": interval,
        "difference": difference,
    }


def _measures(draw: random.Random, recall: Iterable[float], gap: float) -> dict[str, float]:
    values = {
        f"recall_at_{k}": max(0.0, value + gap * (0.4 + k / 100 + draw.uniform(-0.1, 0.1)))
        for k, value in zip(DEPTHS, recall, strict=True)
    }
    ten = values["recall_at_10"]
    spread = draw.uniform(0.5, 1.5) * max(0.004, 0.11 + gap)
    return values | {
        "ndcg_at_10": ten * 0.91,
        "hit_rate_at_10": min(0.99, ten * 2.3),
        "capped_recall_at_10": ten * 1.13,
        "mrr": ten * 1.31,
        "p90_coverage": spread,
        "catalogue_coverage": min(0.97, spread * 6),
        "gini": 0.99 - spread,
    }


def _seeds(draw: random.Random, model: dict[str, float]) -> dict[str, Any]:
    values = {metric: [value + draw.gauss(0, 0.0008) for _ in range(3)] for metric, value in model.items()}
    return {
        "values": {"model": values},
        "mean": {"model": {metric: sum(three) / 3 for metric, three in values.items()}},
        "standard_deviation": {"model": {metric: 0.0007 + draw.random() / 1e3 for metric in values}},
    }


def _data(draw: random.Random) -> dict[str, Any]:
    filtered = {"department is not merchandise": 14_873, "quantity is not positive": 12_229}
    rejected = {"unreadable time": 3, "no user": 41}
    accepted, duplicates = 1_549_301, 217
    read = accepted + duplicates + sum(filtered.values()) + sum(rejected.values())
    weeks = [f"2017-{1 + at // 4.4:02.0f}-{1 + (at % 4) * 7:02d}" for at in range(52)]
    return {
        "events": {
            "rows_read": read,
            "accepted": accepted,
            "duplicates": duplicates,
            "filtered": filtered,
            "rejected": rejected,
        },
        "num_users": 2467,
        "num_advertisers": 5205,
        "num_items": 67_851,
        "num_events": accepted,
        "first_event_at": "2017-01-01T11:53:08Z",
        "last_event_at": "2018-01-01T04:01:20Z",
        "events_by_type": {"checkout": 1_442_205, "custom": 98_004, "view": 9_092},
        "events_by_week": [[week, 27_000 + draw.randrange(6000)] for week in weeks],
    }


def _training(draw: random.Random) -> dict[str, Any]:
    curve = [
        {
            "epoch": epoch,
            "step": epoch * 120,
            "loss": 4.1 + 1.9 / epoch + draw.random() / 20,
            "elapsed_s": 12.31 * epoch,
            "rows_per_s": 900 + draw.random() * 90,
            "validation": {
                "recall_at_10": 0.371 - 0.09 / epoch + draw.random() / 400,
                "recall_at_100": 0.735 - 0.11 / epoch + draw.random() / 400,
            },
        }
        for epoch in range(1, 13)
    ]
    return {"curve": curve, "num_parameters": 1_204_993, "seeds": [0, 1, 2]}


def _example(draw: random.Random, user: str) -> dict[str, Any]:
    events = [
        {
            "occurred_at": f"2017-11-{1 + at:02d}T{draw.randrange(8, 22):02d}:{draw.randrange(10, 59)}:00Z",
            "event_type": draw.choice(EVENT_TYPES),
            "advertiser_id": str(draw.choice((69, 2, 103, 1208))),
            "item_id": str(draw.randrange(800_000, 999_999)),
            "title": draw.choice(TITLES),
            "value": round(draw.uniform(0.7, 12), 2),
        }
        for at in range(29)
    ]
    ranks = range(1, 11)
    advertisers = [
        {
            "rank": rank,
            "advertiser_id": str(draw.randrange(1, 6000)),
            "score": 1.4 - rank / 11 + draw.random() / 20,
            "is_repeat": draw.random() < 0.8,
            "converted": draw.random() < 0.45,
        }
        for rank in ranks
    ]
    products = [
        {
            "rank": rank,
            "item_id": str(draw.randrange(800_000, 999_999)),
            "title": draw.choice(TITLES),
            "score": 0.91 - rank / 17,
            "is_repeat": draw.random() < 0.6,
            "converted": draw.random() < 0.25,
        }
        for rank in ranks
    ]
    return {
        "user_id": user,
        "as_of": "2017-12-01T00:00:00Z",
        "events": events,
        "advertisers": advertisers,
        "products": products,
    }
