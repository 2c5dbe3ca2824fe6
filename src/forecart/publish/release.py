"""A release: an immutable folder with everything that answers for one moment, under one embedding space.

Takes the parts of a finished run; gives a folder that is complete when its manifest is there, and opens it
again for serving. The id follows from what goes in, so the same candidates make the same release.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.metrics.calibration import Calibration, describe_calibrations
from forecart.publish.calibrations import CALIBRATIONS, read_calibrations
from forecart.publish.integrity import FileFacts, describe_files, read_sealed, write_sealed
from forecart.publish.records import RecordLayout, hash_name
from forecart.publish.users import UserTable, write_users
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import Index, IndexSettings, Kind, fold_source
from forecart.sequences.vocabulary import Vocabulary

RELEASE_FORMAT: Final = "forecart-release-2"
_US: Final = 1_000_000
_DAY_S: Final = 86_400
_FALLBACK: Final = "fallback.json"
_ITEM_INDEX: Final = "items/index"
_MAX_EXACT: Final = 300_000
"""Products beyond which reading every vector takes too long for a request."""


class Manifest(BaseModel):
    """What a release says of itself; written last."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: str
    release_id: str
    created_at: str
    as_of_us: int
    embedding_space_id: str
    layout: dict[str, int]
    num_users: int
    ttl_s: int
    metrics: dict[str, float]
    source: dict[str, str]
    files: FileFacts

    @property
    def record_layout(self) -> RecordLayout:
        """The sizes of its records."""
        return RecordLayout(**self.layout)


@dataclass(frozen=True, eq=False)
class Fallback:
    """Lists for a user of whom nothing is known, by country; `EVERYONE` is always there.

    Attributes:
        advertisers: country -> (index, score), best first.
        products: likewise.
    """

    advertisers: Mapping[str, tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]
    products: Mapping[str, tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class ReleaseParts:
    """What a release is built from.

    Attributes:
        as_of_us: up to when histories were read.
        embedding_space_id: of the weights that made the vectors.
        layout: of the records.
        users: the vocabulary of users, in the order of `blocks`.
        advertisers: whose indices are in the records.
        items: likewise.
        blocks: records of some users after others; `release` and `space` are filled in here.
        fallback: level (`advertisers`, `products`) -> country -> [[index, score], ...], best first.
        metrics: what was measured of the model, by name.
        source: what identifies the inputs; the same source, the same release.
        ttl_s: a record is not served longer than this after `as_of`.
        item_vectors: [N, D] vectors of the products and [N] what is added, -inf for what may not be
            retrieved; None without products.
        calibrations: level -> from scores to probabilities, where they were fitted.
    """

    as_of_us: int
    embedding_space_id: str
    layout: RecordLayout
    users: Vocabulary
    advertisers: Vocabulary
    items: Vocabulary
    blocks: Iterable[npt.NDArray[Any]]
    fallback: Mapping[str, Mapping[str, list[tuple[int, float]]]]
    metrics: Mapping[str, float]
    source: Mapping[str, str]
    ttl_s: int = 7 * _DAY_S
    item_vectors: tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]] | None = None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    @property
    def release_id(self) -> str:
        """The moment of the histories, and a hash of what goes in."""
        moment = datetime.fromtimestamp(self.as_of_us / _US, UTC)
        facts = [dict(self.source), self.layout.describe(), self.embedding_space_id, self.ttl_s]
        facts += [self.as_of_us, RELEASE_FORMAT]
        return f"{moment:%Y%m%dT%H%M%SZ}-{artifacts.hash_value(facts)[:12]}"


def build_release(parts: ReleaseParts, folder: Path) -> None:
    """Writes a release into a folder that nobody reads yet; what an earlier try left there is removed.

    Raises:
        ArtifactError: the parts do not belong together.
    """
    shutil.rmtree(folder, ignore_errors=True)
    parts.advertisers.save(folder / "advertisers")
    parts.items.save(folder / "items" / "vocabulary")
    if parts.item_vectors is not None:
        _build_item_index(*parts.item_vectors, parts.embedding_space_id, folder / _ITEM_INDEX)
    artifacts.write_json(folder / _FALLBACK, parts.fallback)
    if parts.calibrations:
        artifacts.write_json(folder / CALIBRATIONS, describe_calibrations(parts.calibrations))
    write_users(folder / "users", parts.users, _stamped(parts), parts.layout)
    manifest = Manifest(
        format=RELEASE_FORMAT,
        release_id=parts.release_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        as_of_us=parts.as_of_us,
        embedding_space_id=parts.embedding_space_id,
        layout=parts.layout.describe(),
        num_users=parts.users.num_ids,
        ttl_s=parts.ttl_s,
        metrics=dict(parts.metrics),
        source=dict(parts.source),
        files=describe_files(folder),
    )
    write_sealed(folder / artifacts.MANIFEST, manifest.model_dump())


def _build_item_index(
    vector_ND: npt.NDArray[np.float16], prior_N: npt.NDArray[np.float32], space: str, folder: Path
) -> None:
    source = fold_source(vector_ND, prior_N, space)
    kind: Kind = "exact" if len(source.candidate_N) <= _MAX_EXACT else "inverted_file"
    build_index(source, folder, IndexSettings(kind=kind))


def _stamped(parts: ReleaseParts) -> Iterable[npt.NDArray[Any]]:
    release, space = hash_name(parts.release_id), hash_name(parts.embedding_space_id)
    for block in parts.blocks:
        if block.dtype != parts.layout.dtype:
            raise ArtifactError("the records of a release are of one layout, another one arrived")
        block["release"], block["space"] = release, space
        yield block


@dataclass(frozen=True, eq=False)
class Release:
    """A release that was verified (`integrity.verify`), open for reading.

    Attributes:
        folder: where it is.
        manifest: what it says of itself.
        advertisers: ids of advertisers by the indices of the records.
        items: ids of products.
        users: everyone's records.
        fallback: lists for a user of whom nothing is known.
        calibrations: level -> from scores to probabilities; empty where the run fitted none.
        item_index: of the products' vectors, the prior folded in; None without products.
    """

    folder: Path
    manifest: Manifest
    advertisers: Vocabulary
    items: Vocabulary
    users: UserTable
    fallback: Fallback
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    item_index: Index | None = None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens a release. Verify it first: the parsers here trust its bytes.

        Raises:
            ArtifactError: it is not complete, of a format that this version does not read, or its
                calibrations do not rise.
            SkewError: its index is of another embedding space.
        """
        manifest, calibrations = read_manifest(folder), folder / CALIBRATIONS
        index, space = folder / _ITEM_INDEX, manifest.embedding_space_id
        return cls(
            folder,
            manifest,
            Vocabulary.load(folder / "advertisers"),
            Vocabulary.load(folder / "items" / "vocabulary"),
            UserTable.open(folder / "users", manifest.record_layout),
            _read_fallback(folder / _FALLBACK),
            read_calibrations(calibrations) if calibrations.exists() else {},
            open_index(index, embedding_space_id=space) if index.exists() else None,
        )

    @property
    def release_id(self) -> str:
        """Its id, and the name of its folder."""
        return self.manifest.release_id

    @cached_property
    def number(self) -> int:
        """The hash of its id that its records carry."""
        return hash_name(self.manifest.release_id)

    @cached_property
    def space(self) -> int:
        """The hash of its embedding space that its records carry."""
        return hash_name(self.manifest.embedding_space_id)

    @cached_property
    def layout(self) -> RecordLayout:
        """The sizes of its records."""
        return self.manifest.record_layout


def read_manifest(folder: Path) -> Manifest:
    """Reads what a release says of itself.

    Raises:
        ArtifactError: it is not complete, damaged, or of a format that this version does not read.
    """
    path = folder / artifacts.MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{folder} must be a complete release, it has no manifest: publish it again")
    try:
        manifest = Manifest.model_validate(read_sealed(path))
    except ValidationError as error:
        raise ArtifactError(
            f"{path} must be of format {RELEASE_FORMAT}: {error.errors()[0]['msg']}"
        ) from None
    if manifest.format != RELEASE_FORMAT:
        raise ArtifactError(f"{path} must be of format {RELEASE_FORMAT}, {manifest.format!r:.40} arrived")
    return manifest


def _read_fallback(path: Path) -> Fallback:
    def read(lists: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
        tables = {country: np.array(rows, np.float64).reshape(-1, 2) for country, rows in lists.items()}
        return {
            country: (table[:, 0].astype(np.int32), table[:, 1].astype(np.float32))
            for country, table in tables.items()
        }

    value = artifacts.read_json(path)
    return Fallback(read(value["advertisers"]), read(value["products"]))
