"""Model cards and the weights that come with the package."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import pathlib
from typing import Any

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.atomic import write_whole

SHIPPED = pathlib.Path(__file__).parent / "shipped"


@dataclasses.dataclass(frozen=True)
class Card:
    """What a file of weights is.

    Attributes:
        preset: the tracker preset that it belongs to.
        data: what it was trained on.
        steps: training steps.
        commit: revision of the code that trained it.
        expected: scores to be expected, ``{"synthetic AUC": 0.55}``.
        command: the command that trained it.
        sha256: of the file; filled in when it is saved.
    """

    preset: str
    data: str
    steps: int
    commit: str
    expected: dict[str, float]
    command: str = ""
    sha256: str = ""


def card_path(path: pathlib.Path) -> pathlib.Path:
    """Where the card of a file of weights lies."""
    return path.with_suffix(".json")


def write_card(path: pathlib.Path, card: Card, data: bytes) -> None:
    """Write the card of a file of weights with this content."""
    card = dataclasses.replace(card, sha256=hashlib.sha256(data).hexdigest())
    text = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False)
    write_whole(card_path(path), f"{text}\n".encode())


def read_card(path: pathlib.Path) -> Card:
    """The card of a file of weights.

    Raises:
        JaxtrackError: there is none, or it lacks a field.
    """
    place = card_path(path)
    try:
        fields: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        return Card(**fields)
    except OSError as error:
        raise JaxtrackError(f"{path}: no model card beside it ({place.name})") from error
    except (ValueError, TypeError) as error:
        raise JaxtrackError(f"{place}: not a model card ({error})") from error


def check_sum(path: pathlib.Path) -> None:
    """Compare a file of weights with the sum in its card, where it has one.

    Raises:
        JaxtrackError: they differ.
    """
    if path.suffix != ".safetensors" or not path.is_file() or not card_path(path).is_file():
        return
    found, wanted = file_sum(path), read_card(path).sha256
    if found != wanted:
        raise JaxtrackError(
            f"{path}: the file is not the one of its card (sha256 {found[:12]}..., "
            f"{wanted[:12]}... expected); get both again"
        )


def file_sum(path: pathlib.Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_names() -> list[str]:
    """Presets whose weights come with the package."""
    return sorted(p.stem for p in SHIPPED.glob("*.safetensors"))


def shipped_path(preset: str) -> pathlib.Path:
    """The file of a preset's shipped weights.

    Raises:
        JaxtrackError: the preset ships none, or its card speaks of another preset.
    """
    path = SHIPPED / f"{preset}.safetensors"
    if not path.is_file():
        known = shipped_names()
        near = difflib.get_close_matches(preset, known, n=1)
        have = f"; weights come with: {', '.join(known)}" if known else ""
        mean = f" (nearest: {near[0]})" if near else ""
        raise JaxtrackError(
            f"no weights come with preset {preset!r}{mean}: give a file of published or own weights{have}"
        )
    card = read_card(path)
    if card.preset != preset:
        raise JaxtrackError(f"{card_path(path)}: the card is that of preset {card.preset!r}")
    return path
