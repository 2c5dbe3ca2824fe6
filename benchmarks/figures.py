"""What a benchmark keeps of a table: recall, differences with intervals, spread of seeds."""

from typing import Any

METRICS = ("recall_at_1", "recall_at_10", "recall_at_20", "recall_at_100")


def pick_table(table: dict[str, Any]) -> dict[str, Any]:
    if not table["model"]:
        return {"num_rows": table["num_rows"]}
    seeds = table.get("seeds")
    means = {"model": table["model"], **table["baselines"]}
    picked: dict[str, Any] = {
        "num_rows": table["num_rows"],
        "num_relevant": table["num_relevant"],
        "recall": {name: {metric: values[metric] for metric in METRICS} for name, values in means.items()},
    }
    differences = table["difference"]
    if seeds:
        differences = seeds["difference"]
        picked["recall"] |= {
            name: {metric: values[metric] for metric in METRICS} for name, values in seeds["mean"].items()
        }
        picked["seed_to_seed"] = {metric: seeds["standard_deviation"]["model"][metric] for metric in METRICS}
    picked["difference"] = {
        metric: {
            name: [interval["mean"], interval["ci_low"], interval["ci_high"]]
            for name, interval in differences[metric].items()
        }
        for metric in METRICS
    }
    return picked
