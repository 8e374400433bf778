"""Results kept from an earlier run, and what they depend on.

Beside the boxes of a tracker lies ``made_from/SEQ.json``: a fingerprint of the tracker (settings, weights,
code) and of the sequence (first box, list of frames, pictures, split, folder), and the checksums
of the result files. Results whose inputs changed, or whose files were damaged, are not kept: their sequence
is tracked again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.records import checksum, read_json, write_json

# What is behind a digest, where its name does not say it.
_MEANS = {"tracker": "tracker (settings, weights, code or --precision)"}


@dataclasses.dataclass(frozen=True)
class Kept:
    """The kept results of one tracker.

    Attributes:
        folder: the tracker's folder.
    """

    folder: Path

    def _record(self, name: str) -> Path:
        return self.folder / "made_from" / f"{name}.json"

    def problem(
        self,
        name: str,
        inputs: Mapping[str, str],
        files: Mapping[str, Path],
        elsewhere: bool = False,
    ) -> str | None:
        """Return why the results of a sequence cannot be kept; None where they can, "" where there are none.

        Args:
            name: the sequence.
            inputs: what its results depend on, by name.
            files: the result files, by role.
            elsewhere: the same data may lie in another folder, as on another host.
        """
        there = [role for role, path in files.items() if path.exists()]
        record = self._record(name)
        if not there and not record.exists():
            return ""
        missing = [role for role in files if role not in there]
        if missing:
            return f"its {missing[0]} are missing"
        if not record.exists():
            return "nothing says what they were made from"
        try:
            made = read_json(record, "record of kept results")
            known, sums = made["inputs"], made["files"]
            names = [k for k in dict.fromkeys([*inputs, *known]) if k != "folder" or not elsewhere]
            changed = [k for k in names if inputs.get(k) != known.get(k)]
            if changed:
                return f"{', '.join(_MEANS.get(k, str(k)) for k in changed[:3])} changed"
            spoiled = [role for role, path in files.items() if checksum(path) != sums.get(role)]
        except (JaxtrackError, OSError, KeyError, TypeError, AttributeError):
            return "the record of what they were made from is damaged"
        return f"its {spoiled[0]} were changed" if spoiled else None

    def remember(self, name: str, inputs: Mapping[str, str], files: Mapping[str, Path]) -> None:
        """Write what the results of a sequence depend on, after the results themselves.

        Args:
            name: the sequence.
            inputs: what they depend on, by name.
            files: the result files, by role.

        Raises:
            JaxtrackError: the disk refuses.
        """
        sums = {role: checksum(path) for role, path in files.items()}
        write_json(self._record(name), {"inputs": dict(inputs), "files": sums})
