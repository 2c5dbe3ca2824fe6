"""Which release is served: a pointer that moves as a whole, one step at a time.

A pointer names the release, the one that was served before, and the number of the move that set it. Moving it
needs the pointer that was there: who comes second is refused, and no move is lost. After a move back the one
before is the one that was withdrawn: it is noted, and stands in for nothing.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from forecart.errors import StoreError

Move = Literal["publish", "rollback"]


@dataclass(frozen=True)
class Pointer:
    """What is served.

    Attributes:
        release_id: of the release.
        previous_id: of the one that was served before; None for the first.
        sequence: number of the move, from 1, one more each time.
        move: whether a release was published or gone back to.
        moved_at: when, ISO 8601 in UTC.
    """

    release_id: str
    previous_id: str | None
    sequence: int
    move: Move
    moved_at: str

    @classmethod
    def after(cls, current: "Pointer | None", release_id: str, *, move: Move) -> "Pointer":
        """Returns the pointer of the next move to a release."""
        return cls(
            release_id=release_id,
            previous_id=None if current is None else current.release_id,
            sequence=1 if current is None else current.sequence + 1,
            move=move,
            moved_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    @property
    def named_ids(self) -> frozenset[str]:
        """The releases that it names."""
        return frozenset(one for one in (self.release_id, self.previous_id) if one is not None)

    @property
    def stand_in_id(self) -> str | None:
        """The release that answers whom the served one does not know; never one that was withdrawn."""
        return None if self.move == "rollback" else self.previous_id

    def to_json(self) -> str:
        """Returns it as one line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Pointer":
        """Reads what `to_json` wrote.

        Raises:
            StoreError: it is no pointer.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            raise StoreError(f"a store's pointer names a release, {text[:80]!r} arrived") from None
