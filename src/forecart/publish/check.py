"""The last look at a release, in a process of its own: `python -m forecart.publish.check ROOT ID [PREVIOUS]`.

A publisher runs it before the pointer moves, so that what is checked is what is on the disk and not what the
publisher remembers. Keys of who is suppressed come on standard input, one a line, and the settings of the
gate as JSON in the first. Ends with 0, or with 2 and one line that says which rule was broken.
"""

import subprocess
import sys
from collections.abc import Set
from pathlib import Path
from typing import Final

from forecart.errors import ArtifactError, ForecartError, GateError, NotFoundError
from forecart.publish.gate import GateSettings, check_release
from forecart.publish.release import Manifest, read_manifest
from forecart.publish.releases import Releases

_BROKEN: Final = 2


def check_in_fresh_process(
    root: Path, release_id: str, previous_id: str | None, *, suppressed: Set[str], settings: GateSettings
) -> None:
    """Runs the check.

    Raises:
        GateError: the release breaks a rule of the gate, or is damaged.
        ArtifactError: the check itself ended otherwise.
    """
    command = [sys.executable, "-m", "forecart.publish.check", str(root), release_id, previous_id or ""]
    lines = [settings.model_dump_json(), *sorted(suppressed)]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode == _BROKEN:
        raise GateError(done.stderr.strip())
    if done.returncode:
        raise ArtifactError(f"the check of {release_id} ended with {done.returncode}: {done.stderr[-300:]}")


def main(root: Path, release_id: str, previous_id: str) -> int:
    """Checks a release; see the module."""
    first, *keys = sys.stdin.read().splitlines()
    releases = Releases(root)
    try:
        check_release(
            releases.open(release_id),
            read_previous(releases, previous_id),
            suppressed=frozenset(keys),
            settings=GateSettings.model_validate_json(first),
        )
    except ForecartError as error:
        sys.stderr.write(f"{error}\n")
        return _BROKEN
    return 0


def read_previous(releases: Releases, release_id: str | None) -> Manifest | None:
    """Returns what a new release is held against: None before the first, and where it is lost or damaged."""
    try:
        return read_manifest(releases.path(release_id)) if release_id else None
    except (ArtifactError, NotFoundError):
        return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
