"""Which models a run trains, and the key that each of its stages is marked with.

Takes a configuration and the folder of its run; gives names, folders and hashes, and writes nothing. A key is
the hash of exactly what a stage follows from: the files of the stages before it and the settings it reads. So
a changed setting redoes what depends on it and nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from forecart import artifacts
from forecart.config import RunConfig, TargetConfig
from forecart.evaluation.calibration import CALIBRATION_FORMAT
from forecart.evaluation.targets import MODEL
from forecart.events.ingest import CATALOGUE_FILE
from forecart.events.schema import EVENT_SCHEMA
from forecart.object_store import describe_objects
from forecart.retrieval.candidates import CANDIDATES_FORMAT
from forecart.sequences.build import sequences_key
from forecart.sequences.split import PLURAL, SECTION, Level
from forecart.training.trained_model import TRAINED_FORMAT

NO_ENCODER: Final = "no_encoder"


@dataclass(frozen=True)
class RunPlan:
    """What a run consists of.

    Attributes:
        config: of the run.
        folder: of its artifacts. A key that holds the files of a stage needs the stage to be complete.
    """

    config: RunConfig
    folder: Path

    def models(self, level: Level) -> list[tuple[str, int]]:
        """Returns system and seed number of every model of a level."""
        target = self.config.target(level)
        has_ablation = target.ablate_encoder and target.model.num_layers
        systems = [MODEL, NO_ENCODER] if has_ablation else [MODEL]
        return [(system, number) for system in systems for number in range(target.num_seeds)]

    def target(self, level: Level, system: str = MODEL) -> TargetConfig:
        """Returns the section of a level as a system has it."""
        target = self.config.target(level)
        if system == MODEL:
            return target
        model = target.model.model_copy(update={"num_layers": 0})
        return target.model_copy(update={"model": model})

    def model_folder(self, level: Level, system: str = MODEL, seed_number: int = 0) -> Path:
        """Returns where a model of this run is."""
        return self.folder / "training" / SECTION[level] / f"{system}-{seed_number}"

    def model_key(self, level: Level) -> str:
        """Returns the key of the model that is served, from the disk: it changes with every training."""
        key: str = artifacts.read_json(self.model_folder(level) / artifacts.MANIFEST)["key"]
        return key

    # --- the keys -------------------------------------------------------------------------------------

    def events_key(self) -> str:
        """Returns the key of the event store."""
        files = [*self.config.source.events, self.config.source.catalogue]
        local = [path for path in files if isinstance(path, Path)]
        stats = [*artifacts.describe_files(local), *describe_objects(files)]
        described = [stats, self._dump("source", "events"), list(EVENT_SCHEMA)]
        return artifacts.hash_value(described)

    def sequences_key(self) -> str:
        """Returns the key of vocabularies and histories."""
        return sequences_key(self.folder / "events", read_until_us=self.config.read_until_us)

    def trained_key(self, level: Level, system: str = MODEL, seed_number: int = 0) -> str:
        """Returns the key of a trained model; the successor term is in it where it helps choose weights."""
        target = self.target(level, system)
        chooses_weights = self.config.split.validate_before and target.training.patience
        return artifacts.hash_value(
            [
                artifacts.stage_files(self.folder / "sequences"),
                artifacts.stage_files(self.folder / "events")[CATALOGUE_FILE],
                self.config.learn_until_us,
                self._dump("labels"),
                target.model.model_dump(mode="json"),
                target.training.model_dump(mode="json"),
                {"seed": self.config.seed + seed_number, "format": TRAINED_FORMAT},
                *(self._successor_settings(level) if chooses_weights else []),
            ]
        )

    def trials_key(self, level: Level, metric: str) -> str:
        """Returns the key of the trials of `forecart tune`, which are measured with the successor term."""
        return artifacts.hash_value([self.trained_key(level), metric, *self._successor_settings(level)])

    def evaluation_key(self) -> str:
        """Returns the key of the report and the lists behind it."""
        keys = [self.trained_key(level, *one) for level in self.config.levels for one in self.models(level)]
        return artifacts.hash_value(
            [
                keys,
                artifacts.stage_files(self.folder / "events"),
                self._evaluated(),
            ]
        )

    def calibration_key(self) -> str:
        """Returns the key of the calibrations and of how far they held."""
        targets = [self.config.target(level) for level in self.config.levels]
        rules = {PLURAL[level]: rule for level in self.config.levels for rule in self._rerank_rule(level)}
        return artifacts.hash_value(
            [
                {PLURAL[level]: self.trained_key(level) for level in self.config.levels},
                artifacts.stage_files(self.folder / "events")[CATALOGUE_FILE],
                [[target.top_k, target.successors.model_dump(mode="json")] for target in targets],
                self._dump("split", "labels", "seed"),
                self.config.candidates.model_dump(mode="json", include={"as_of", "eligibility"}),
                CALIBRATION_FORMAT,
                *([rules] if rules else []),
            ]
        )

    def candidates_key(self, level: Level) -> str:
        """Returns the key of a level's candidate tables."""
        target = self.config.target(level)
        successor_settings = target.successors.model_dump(mode="json")
        return artifacts.hash_value(
            [
                self.trained_key(level),
                self._dump("candidates"),
                target.top_k,
                successor_settings,
                CANDIDATES_FORMAT,
                *self._rerank_rule(level),
            ]
        )

    def _successor_settings(self, level: Level) -> list[dict[str, Any]]:
        """Returns the settings of the term where there is one: without it keys are as they always were."""
        settings = self.config.target(level).successors
        return [settings.model_dump(mode="json")] if settings.weight else []

    def _rerank_rule(self, level: Level) -> list[dict[str, Any]]:
        """Returns the rule of the lists; nothing where they are by score, so that keys are as they were."""
        rule = self.config.target(level).rerank.rule
        return [rule.model_dump(mode="json")] if rule else []

    def _evaluated(self) -> dict[str, Any]:
        """Returns the sections that the evaluation reads; of re-ranking nothing where there is none."""
        dumped = self._dump("split", "evaluation", *SECTION.values())
        for level in SECTION:
            if self.config.target(level).rerank.rule is None:
                del dumped[SECTION[level]]["rerank"]
        if not self.config.evaluation.frontier:
            del dumped["evaluation"]["frontier"]
        return dumped

    def _dump(self, *sections: str) -> dict[str, Any]:
        return self.config.model_dump(mode="json", include=set(sections))
