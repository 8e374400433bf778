"""Results of studies: kept with what they depend on, and written as table, numbers and figure."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import write_whole
from jaxtrack.io.paths import output_folder
from jaxtrack.io.records import read_json, write_json


class Kept:
    """Results of finished runs in a folder, found by all that they depend on."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when something is kept."""
        self.folder = folder

    def get(self, inputs: dict[str, Any]) -> Any:
        """Return what was kept for these inputs; None: nothing, or no longer whole."""
        path = self._path(inputs)
        if not path.is_file():
            return None
        try:
            found = read_json(path, "a result of this study", kind=dict)
        except JaxtrackError as error:
            print(f"note: {error}; measured again", file=sys.stderr)
            return None
        return found.get("result") if found.get("inputs") == inputs else None

    def put(self, inputs: dict[str, Any], result: Any) -> None:
        """Keep a result; both are values of JSON."""
        write_json(self._path(inputs), {"inputs": inputs, "result": result})

    def _path(self, inputs: dict[str, Any]) -> Path:
        text = json.dumps(inputs, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def begin(output: Path, *inputs: Path | None) -> Path:
    """Return the folder of a study, whose figures need no display.

    Args:
        output: the folder.
        inputs: what the study reads, which the folder must not be; None: nothing.

    Raises:
        JaxtrackError: as `jaxtrack.io.paths.output_folder`.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    return output_folder(output, inputs=[path for path in inputs if path is not None])


def write(folder: Path, name: str, rows: Sequence[Any], text: str, figure: Any) -> None:
    """Write what a study found, and say where.

    Args:
        folder: of the study.
        name: of the files: NAME.json, NAME.txt and NAME.png.
        rows: dataclasses or dicts, one for each line of the table.
        text: the table.
        figure: of matplotlib.
    """
    plain = [dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row for row in rows]  # type: ignore[arg-type]
    write_json(folder / f"{name}.json", plain)
    write_whole(folder / f"{name}.txt", f"{text}\n".encode())
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_whole(folder / f"{name}.png", picture.getvalue())
    print(f"table:  {folder / f'{name}.txt'}\nfigure: {folder / f'{name}.png'}")
