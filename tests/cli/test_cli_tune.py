"""`forecart tune` on a small log: the start is a trial, a killed search goes on, the future is not read."""

import json
import tomllib

import pytest
from commands import forecart, write_log

from forecart import tune
from forecart.config import load_config
from forecart.errors import ConfigError
from forecart.training.loop import Trainer, kept_entry
from forecart.training.settings import TrainingSettings


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "shop.toml"
    forecart("init", write_log(tmp_path / "log.csv"), "--output", path)
    text = path.read_text().replace("num_epochs = 8", "num_epochs = 1").replace("width = 32", "width = 16")
    path.write_text(text)
    return path


def run_tune(config, folder, *words):
    return forecart("tune", config, "--output", folder, *words)


def test_the_best_trial_becomes_a_configuration(config, tmp_path):
    folder = tmp_path / "run"
    found = json.loads(run_tune(config, folder, "--trials", 3, "--json").stdout)
    assert [one["trial"] for one in found["trials"]] == [0, 1, 2] and not found["trials"][0]["settings"]
    measures = [one["measure"] for one in found["trials"]]
    assert measures[found["best"]] == max(measures) and all(0 <= one <= 1 for one in measures)
    tuned, before = load_config(found["config"]), load_config(str(config))
    assert tuned.split == before.split and tuned.next_product == before.next_product
    values = tomllib.loads((folder / "tuned.toml").read_text())["next_advertiser"]
    for name, value in found["trials"][found["best"]]["settings"].items():
        section, key = name.split(".")
        assert values[section][key] == value
    assert (folder / "tuned.toml").read_text().startswith("# Best of 3 trials by forecart tune")

    # More trials add to what is there; as many as there are do nothing.
    said = run_tune(config, folder, "--trials", 4)
    assert said.stdout.rstrip().endswith("tuned.toml") and said.stderr.count("trial ") == 1
    assert "trial " not in run_tune(config, folder, "--trials", 4).stderr


def test_a_killed_trial_goes_on_and_none_is_drawn_twice(config, tmp_path, monkeypatch):
    """The second process draws from another seed: only what was asked again is the same."""
    folder, ran = tmp_path / "run", []

    def run(self):
        ran.append((self.settings, self.model.settings, self.folder))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return real_run(self)

    real_run = Trainer.run
    monkeypatch.setattr(Trainer, "run", run)
    forecart("tune", config, "--output", folder, "--trials", 4, code=130)
    found = json.loads(run_tune(config, folder, "--trials", 4, "--json").stdout)
    settings = [str(one["settings"]) for one in found["trials"]]
    assert len(set(settings)) == 4 and len(ran) == 5 and ran[2] == ran[3]
    assert load_config(str(config)).model_dump(mode="json") == json.loads(
        (folder / "config.json").read_text()
    )


def test_a_trial_that_diverges_is_the_worst_and_not_the_end(config, tmp_path, monkeypatch):
    def run(self):
        if self.settings.batch_rows != 64:
            raise ConfigError("the loss must be a finite number")
        return real_run(self)

    real_run = Trainer.run
    monkeypatch.setattr(Trainer, "run", run)
    said = run_tune(config, tmp_path / "run", "--trials", 4, "--json")
    measures = [one["measure"] for one in json.loads(said.stdout)["trials"]]
    assert len(measures) == 4 and 0.0 in measures and "the loss must be a finite number" in said.stderr


def test_what_is_written_can_be_run_from_anywhere(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.write_text(config.read_text().replace(f'"{tmp_path / "log.csv"}"', '"log.csv"'))
    forecart("tune", "shop.toml", "--output", "run", "--trials", 1)
    monkeypatch.chdir("/")
    tuned = load_config(str(tmp_path / "run" / "tuned.toml"))
    assert tuned.source.events == [tmp_path / "log.csv"]


def test_the_weights_that_training_keeps_are_judged():
    curve = [{"validation": {"recall_at_10": value}} for value in (0.1, 0.3, 0.2)]
    assert kept_entry(curve, TrainingSettings()) is curve[2]
    assert kept_entry(curve, TrainingSettings(patience=2)) is curve[1]


def test_what_comes_after_as_of_does_not_matter(config, tmp_path):
    log = tmp_path / "log.csv"
    before = json.loads(run_tune(config, tmp_path / "one", "--trials", 2, "--json").stdout)
    cut = f"{load_config(str(config)).split.as_of:%Y-%m-%d}"
    lines = log.read_text().splitlines()
    late = [line for line in lines[1:] if line.rsplit(",", 1)[1] >= cut]
    assert late
    changed = [line.replace(",a0,", ",a1,") if line in late else line for line in lines]
    assert changed != lines
    log.write_text("\n".join(changed) + "\n")
    after = json.loads(run_tune(config, tmp_path / "two", "--trials", 2, "--json").stdout)
    assert before["trials"] == after["trials"]


def test_heads_that_do_not_divide_become_one():
    target = load_config("demo").next_advertiser
    target = target.model_copy(
        update={"model": target.model.model_copy(update={"num_heads": 3, "width": 96})}
    )
    model, training = tune.apply_settings(target, {"model.width": 64, "training.num_epochs": 5})
    assert (model.width, model.num_heads, training.num_epochs) == (64, 1, 5)
    assert tune.apply_settings(target, {})[0] == target.model


def test_a_target_that_is_off_is_refused(config, tmp_path):
    config.write_text(config.read_text().replace("[next_product]", "[next_product]\nis_enabled = false"))
    said = forecart("tune", config, "--target", "next_product", "--output", tmp_path / "run", code=2)
    assert "next_product must be enabled" in said.stderr
