"""The folder of releases: where each is, whether it is whole, and how one comes in and goes.

`releases/ID/` are the releases, `stamps/ID.json` says that one was found whole, `stamps/ID.passed` that the
gate passed it and `stamps/ID.withdrawn` that it was gone back from; `building/` is what a publisher works on.
A release appears by a rename, so whoever lists the folder sees whole ones only.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from forecart import artifacts
from forecart.errors import NotFoundError
from forecart.publish.integrity import verify
from forecart.publish.release import Release

RELEASE_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")


def moment_of(release_id: str) -> str:
    """Returns up to when the histories of a release were read, to the second, as text in order of time."""
    return release_id.partition("-")[0]


class Releases:
    """The releases below a root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, release_id: str) -> Path:
        """Returns the folder of a release, which need not be there.

        Raises:
            NotFoundError: it is no id of a release.
        """
        if not RELEASE_ID.fullmatch(release_id):
            raise NotFoundError(
                f"a release is named like 20171201T000000Z-0123456789ab, not {release_id!r:.80}"
            )
        return self.root / "releases" / release_id

    def ids(self) -> list[str]:
        """Returns the ids of the releases that are here, the oldest history first."""
        folder = self.root / "releases"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in names if RELEASE_ID.fullmatch(name))

    def verify(self, release_id: str, *, anew: bool = False) -> None:
        """Checks that a release is what was written.

        Args:
            release_id: which.
            anew: read it again even where it was found whole before and no file has changed since.

        Raises:
            NotFoundError: there is no such release.
            ArtifactError: it is damaged.
        """
        folder = self.path(release_id)
        if not folder.is_dir():
            known = ", ".join(self.ids()[-3:]) or "none"
            raise NotFoundError(f"{self.root} has no release {release_id}; the latest there are: {known}")
        if anew:
            self.stamp(release_id).unlink(missing_ok=True)
        verify(folder, self.stamp(release_id))

    def open(self, release_id: str) -> Release:
        """Verifies a release and opens it; the errors are those of `verify`."""
        self.verify(release_id)
        return Release.open(self.path(release_id))

    def building(self, release_id: str) -> Path:
        """Returns the folder to build a release in; what killed publishers left beside it is removed."""
        folder = self.root / "building"
        shutil.rmtree(folder, ignore_errors=True)
        return folder / self.path(release_id).name

    def take_in(self, built: Path) -> None:
        """Makes a built release appear, once it is durable."""
        goal = self.path(built.name)
        goal.parent.mkdir(parents=True, exist_ok=True)
        for folder in [built, *(path for path in built.rglob("*") if path.is_dir())]:
            artifacts.sync_folder(folder)
        built.replace(goal)
        artifacts.sync_folder(goal.parent)

    def remove(self, release_id: str) -> None:
        """Removes a release: its manifest first, so that no half of it looks complete."""
        folder = self.path(release_id)
        for mark in ("passed", "withdrawn"):
            self._mark(release_id, mark).unlink(missing_ok=True)
        (folder / artifacts.MANIFEST).unlink(missing_ok=True)
        self.stamp(release_id).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def note_passed(self, release_id: str) -> None:
        """Notes that a release passed the gate."""
        artifacts.write_text(self._mark(release_id, "passed"), "")

    def has_passed(self, release_id: str) -> bool:
        """Whether a release is known to have passed the gate."""
        return self._mark(release_id, "passed").is_file()

    def note_withdrawn(self, release_id: str) -> None:
        """Notes that a release was gone back from."""
        artifacts.write_text(self._mark(release_id, "withdrawn"), "")

    def note_served(self, release_id: str) -> None:
        """Notes that a release is served, whatever it was gone back from before."""
        self._mark(release_id, "withdrawn").unlink(missing_ok=True)

    def is_withdrawn(self, release_id: str) -> bool:
        """Whether a release was gone back from and not served since."""
        return self._mark(release_id, "withdrawn").is_file()

    def _mark(self, release_id: str, mark: str) -> Path:
        return self.root / "stamps" / f"{release_id}.{mark}"

    def stamp(self, release_id: str) -> Path:
        """Returns where it is noted that a release was found whole."""
        return self.root / "stamps" / f"{release_id}.json"
