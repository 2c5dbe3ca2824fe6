"""Settings chosen on validation: resumable trials on one configuration's data, the start among them.

Takes a workflow whose split keeps the last window before `as_of` for validation; gives every trial with its
measure and the best settings. The test cuts are never looked at. Trials live in an SQLite file below the
run's folder; a killed trial goes on from its checkpoint.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from forecart import artifacts
from forecart.config import RunConfig, TargetConfig
from forecart.errors import ConfigError, DataError
from forecart.model.settings import ModelSettings
from forecart.sequences.split import SECTION, Level
from forecart.training.loop import kept_entry
from forecart.training.settings import TrainingSettings
from forecart.workflow import Workflow

Settings = dict[str, Any]


def suggest(trial: optuna.Trial, target: TargetConfig) -> Settings:
    """Returns settings of the model and the training, as `section.name` -> value."""
    most_epochs = 2 * target.training.num_epochs
    settings: Settings = {
        "model.width": trial.suggest_categorical("model.width", [32, 64, 128]),
        "model.num_layers": trial.suggest_int("model.num_layers", 1, 3),
        "model.dropout": trial.suggest_float("model.dropout", 0.0, 0.5, step=0.05),
        "model.temperature": trial.suggest_float("model.temperature", 0.05, 1.0, log=True),
        "model.id_embedding": trial.suggest_categorical("model.id_embedding", ["none", "hashed", "table"]),
        "training.learning_rate": trial.suggest_float("training.learning_rate", 3e-4, 5e-3, log=True),
        "training.num_epochs": trial.suggest_int("training.num_epochs", 1, most_epochs),
        "training.batch_rows": trial.suggest_categorical("training.batch_rows", [64, 128, 256, 512, 1024]),
    }
    if target.model.use_own_history:
        share = trial.suggest_categorical("model.own_tower_share", [0.0, 0.5, 1.0])
        settings["model.own_tower_share"] = share
        factor = trial.suggest_float("training.own_rate_factor", 1.0, 10.0, log=True)
        settings["training.own_rate_factor"] = factor
    return settings


def apply_settings(target: TargetConfig, settings: Settings) -> tuple[ModelSettings, TrainingSettings]:
    """Returns the settings of a target with some of them changed; heads that no longer divide become one."""
    changed: dict[str, Settings] = {"model": {}, "training": {}}
    for name, value in settings.items():
        section, key = name.split(".")
        changed[section][key] = value
    model = target.model.model_dump() | changed["model"]
    if model["width"] % model["num_heads"]:
        model["num_heads"] = 1
    training = target.training.model_dump() | changed["training"]
    return ModelSettings.model_validate(model), TrainingSettings.model_validate(training)


@dataclass(frozen=True)
class Tried:
    """One finished trial: its number, its measure on validation and its settings (none: the start).

    A trial whose loss was no number any more has a measure of 0 and says why in `error`.
    """

    number: int
    measure: float
    settings: Settings
    error: str = ""


@dataclass(frozen=True, eq=False)
class Tuning:
    """A search for the settings of one target.

    Attributes:
        workflow: its configuration has `validate_before`; events and sequences are built where missing.
        level: whose settings.
        metric: what is best, of the measures that training takes on validation.
    """

    workflow: Workflow
    level: Level
    metric: str = "recall_at_10"

    @property
    def folder(self) -> Path:
        """Where the trials are."""
        return self.workflow.folder / "tune" / SECTION[self.level]

    @property
    def _target(self) -> TargetConfig:
        return self.workflow.config.target(self.level)

    def run(self, num_trials: int, *, on_trial: Callable[[Tried], None] | None = None) -> list[Tried]:
        """Runs trials until there are `num_trials` finished ones and returns all, in order.

        The first is the configuration as it stands, so the best is never worse on validation.

        Args:
            num_trials: finished trials in all, those of earlier runs included.
            on_trial: told of every trial that finishes.
        """
        self.workflow.events()
        self.workflow.sequences()
        for stale in self._study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            self._study.enqueue_trial(stale.params)
            self._study.tell(stale.number, state=optuna.trial.TrialState.FAIL)
        if self._baseline is None:
            self._study.set_user_attr("baseline", self._measure({}))
            if on_trial is not None:
                on_trial(self.finished[0])
        while len(self.finished) < num_trials:
            trial = self._study.ask()
            settings = suggest(trial, self._target)
            trial.set_user_attr("settings", settings)
            try:
                measure = self._measure(settings)
            except ConfigError as error:
                trial.set_user_attr("error", str(error))
                measure = 0.0
            self._study.tell(trial, measure)
            if on_trial is not None:
                on_trial(self.finished[-1])
        return self.finished

    @property
    def finished(self) -> list[Tried]:
        """The configuration as it stands, then the trials in the order they were asked for."""
        if self._baseline is None:
            return []
        trials = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
        tried = [
            Tried(one.number + 1, one.values[0], one.user_attrs["settings"], one.user_attrs.get("error", ""))
            for one in trials
        ]
        return [Tried(0, self._baseline, {}), *tried]

    @property
    def best(self) -> Tried:
        """The trial with the largest measure, the earliest of equals."""
        return max(self.finished, key=lambda one: (one.measure, -one.number))

    def tuned_config(self, config: RunConfig) -> RunConfig:
        """Returns a configuration with the best settings of this target."""
        model, training = apply_settings(self._target, self.best.settings)
        target = config.target(self.level).model_copy(update={"model": model, "training": training})
        return config.model_copy(update={SECTION[self.level]: target})

    @property
    def _baseline(self) -> float | None:
        value: float | None = self._study.user_attrs.get("baseline")
        return value

    @cached_property
    def _study(self) -> optuna.Study:
        """The trials of exactly these data, this start and this metric; others stay in the file."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{self.folder / 'trials.db'}",
            study_name=self.workflow.plan.trials_key(self.level, self.metric),
            direction="maximize",
            load_if_exists=True,
        )
        # Of another seed in each process, or it would draw again what an earlier one has drawn.
        seed = self.workflow.config.seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study

    def _measure(self, settings: Settings) -> float:
        """Trains with some settings and returns the measure of the weights that training keeps."""
        model, training = apply_settings(self._target, settings)
        task = replace(self.workflow.training_task(self.level), model=model, training=training)
        folder = self.folder / artifacts.hash_value([self._study.study_name, settings])
        try:
            curve = task.build_trainer(folder, validate=self.workflow.validation(self.level)).run()
        except ConfigError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)
        measures = kept_entry(curve, training)["validation"]
        if self.metric not in measures:
            raise DataError(
                f"{self.metric} must be measurable on the days before as_of, nobody there converts with "
                f"anyone new: choose from {', '.join(measures)}"
            )
        measure: float = measures[self.metric]
        return measure
