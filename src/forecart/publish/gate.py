"""The quality gate: what a release must be before the pointer may move to it.

Takes a release, the one that is served, and who is suppressed; raises where the new one is empty, broken, or
much worse. It reads every record, so it also finds what is damaged.
"""

from collections import Counter
from collections.abc import Set
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from forecart.errors import GateError, SkewError, StoreError
from forecart.publish.records import checksums, hash_user
from forecart.publish.release import Manifest, Release
from forecart.publish.suppression import suppression_key

_TOP: Final = 10
_FEW_USERS: Final = 20
_SAMPLE_USERS: Final = 100_000
"""About so many users' lists are compared: memory must not grow with the population."""


class GateSettings(BaseModel):
    """How much worse than the one before a release may be."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_users_share: float = Field(default=0.5, ge=0, le=1)
    """At least so many users, as a share of those of the release before; exactly so many is too few."""
    max_recall_drop: float = Field(default=0.1, ge=0, le=1)
    """Every recall that both releases have measured may fall by less than this, relatively."""
    max_same_list_share: float = Field(default=0.9, ge=0, le=1)
    """At most so many of the users with a list of a level may share one; of fewer than 20 all may. Of a large
    population about 100,000 are looked at, always the same ones."""


def check_release(
    release: Release, previous: Manifest | None, *, suppressed: Set[str], settings: GateSettings
) -> None:
    """Checks a release before it is served.

    Args:
        release: verified and open.
        previous: of the release that is served; None before the first.
        suppressed: keys of who must not be in it.
        settings: how much worse it may be.

    Raises:
        GateError: it breaks a rule.
        StoreError: a record is damaged.
        SkewError: a record is of another release.
    """
    _check_size(release.manifest, previous, settings)
    _check_recall(release.manifest, previous, settings)
    lists: dict[str, Counter[bytes]] = {"advertisers": Counter(), "products": Counter()}
    num_empty, stride = 0, -(-release.manifest.num_users // _SAMPLE_USERS)
    for ids, records in release.users.blocks():
        if suppressed and (found := [one for one in ids if suppression_key(one) in suppressed]):
            raise GateError(f"nobody who is suppressed may be in a release, {len(found)} or more are")
        _check_records(release, ids, records)
        # The name of a user is a hash of the id: what it leaves over draws the same users every day.
        _count_lists(records[records["user"] % stride == 0], lists)
        num_empty += int(np.count_nonzero((records["num_advertisers"] + records["num_items"]) == 0))
    num_users = release.manifest.num_users
    if num_empty == num_users:
        raise GateError("a release must hold candidates, every list of this one is empty")
    for level, counter in lists.items():
        _check_personal(level, counter, settings)


def _count_lists(records: npt.NDArray[Any], lists: dict[str, Counter[bytes]]) -> None:
    for level, kind in (("advertisers", "advertiser"), ("products", "item")):
        index = records[f"{kind}_index"][records[f"num_{kind}s"] > 0, :_TOP]
        lists[level].update(row.tobytes() for row in index)


def _check_personal(level: str, lists: Counter[bytes], settings: GateSettings) -> None:
    num_users, most = lists.total(), max(lists.values(), default=0)
    if num_users >= _FEW_USERS and most > settings.max_same_list_share * num_users:
        raise GateError(
            f"{level} must be personal: at most {settings.max_same_list_share:.0%} may share one list, "
            f"{most} of {num_users} do"
        )


def _check_size(manifest: Manifest, previous: Manifest | None, settings: GateSettings) -> None:
    if manifest.num_users == 0:
        raise GateError("a release must hold users, this one is empty")
    least = 0.0 if previous is None else settings.min_users_share * previous.num_users
    if previous is not None and manifest.num_users <= least:
        raise GateError(
            f"a release must hold more than {settings.min_users_share:.0%} of the {previous.num_users} users "
            f"of the one before, it holds {manifest.num_users}"
        )


def _check_recall(manifest: Manifest, previous: Manifest | None, settings: GateSettings) -> None:
    before = {} if previous is None else previous.metrics
    for name, value in before.items():
        least = (1 - settings.max_recall_drop) * value
        if "recall" in name and name in manifest.metrics and manifest.metrics[name] <= least:
            raise GateError(
                f"{name} must stay above {least:.4f}, after {value:.4f}: {manifest.metrics[name]:.4f} arrived"
            )


def _check_records(release: Release, ids: list[str], records: npt.NDArray[Any]) -> None:
    names = ("advertiser_score", "item_score", "vector")
    if broken := [name for name in names if not np.isfinite(records[name]).all()]:
        raise GateError(
            f"a release must hold numbers, {broken[0]} holds NaN or infinity: the model has diverged"
        )
    if (checksums(records) != records["crc32"]).any():
        raise StoreError("the checksum of every record must be that of its bytes, one is not: it is damaged")
    if records["user"].tolist() != [hash_user(user_id) for user_id in ids]:
        raise StoreError("every record must be of its user, one of another user arrived")
    if (records["release"] != release.number).any() or (records["space"] != release.space).any():
        raise SkewError("every record must be of its release, one of another release arrived")
