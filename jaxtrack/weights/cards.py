"""Model cards and the weights that come with the package."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from typing import Any

from jaxtrack.errors import JaxtrackError, brief, reason
from jaxtrack.io.records import checksum, read_json, write_json

_LARGEST = 1 << 20  # bytes
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
    """Return where the card of a file of weights lies."""
    return path.with_suffix(".json")


def announce(path: pathlib.Path, card: Card, data: bytes) -> None:
    """Write the card of weights that are about to replace a file; that of the older ones is kept in it.

    Whichever of the two files is there when the program ends, the card knows it.

    Args:
        path: the file of weights, as yet the old one or none.
        card: of the new weights.
        data: the new content.
    """
    fields = _fields(card, data)
    if path.is_file():
        older = checksum(path)
        try:
            known = dataclasses.asdict(read_card(path))
        except JaxtrackError:
            known = {}
        fields["replaces"] = known if known.get("sha256") == older else {"sha256": older}
    write_json(card_path(path), fields)


def write_card(path: pathlib.Path, card: Card, data: bytes) -> None:
    """Write the card of a file of weights with this content."""
    write_json(card_path(path), _fields(card, data))


def remove_card(path: pathlib.Path) -> None:
    """Remove the card of a file of weights that is about to be replaced by one without."""
    try:
        card_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise JaxtrackError(f"{card_path(path)}: cannot be removed ({reason(error)})") from error


def _fields(card: Card, data: bytes) -> dict[str, Any]:
    return dataclasses.asdict(card) | {"sha256": hashlib.sha256(data).hexdigest()}


def read_card(path: pathlib.Path) -> Card:
    """Return the card of a file of weights.

    Raises:
        JaxtrackError: there is none, or it is no card: damaged, a field missing or of another type.
    """
    place = card_path(path)
    if not place.is_file():
        raise JaxtrackError(f"{path}: no model card beside it ({place.name})")
    fields = _read(place)
    older = fields.pop("replaces", None)
    if older is not None:
        # The writing of new weights broke off: the file itself tells which they are.
        older = _card(place, older) if isinstance(older, dict) and len(older) > 1 else None
        if older is not None and path.is_file() and checksum(path) == older.sha256:
            return older
    return _card(place, fields)


def _read(place: pathlib.Path) -> dict[str, Any]:
    return read_json(place, "a model card", dict, _LARGEST)


def _card(place: pathlib.Path, fields: dict[str, Any]) -> Card:
    known = {field.name: field for field in dataclasses.fields(Card)}
    unusual = sorted(fields.keys() - known.keys())
    missing = [
        name
        for name, field in known.items()
        if name not in fields and field.default is dataclasses.MISSING
    ]
    wrong = [name for name in known.keys() & fields.keys() if not _is_sound(name, fields[name])]
    for what, faults in (
        ("lacks", missing),
        ("has an odd", sorted(wrong)),
        ("has no place for", unusual),
    ):
        if faults:
            raise JaxtrackError(
                f"{place}: not a model card ({what} {brief(', '.join(faults))}): rename it if it is "
                "something else, or delete it to use the weights without one"
            )
    return Card(**fields)


def _is_sound(name: str, value: Any) -> bool:
    """Say whether a field of a card has a value of its type."""
    if name == "expected":
        return isinstance(value, dict) and all(
            isinstance(x, (int, float)) and not isinstance(x, bool) for x in value.values()
        )
    if name == "steps":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    if name == "sha256":
        return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}|", value) is not None
    return isinstance(value, str)


def check_sum(path: pathlib.Path) -> None:
    """Compare a file of weights with the sum in its card, where it has one.

    Raises:
        JaxtrackError: they differ.
    """
    if path.suffix != ".safetensors" or not path.is_file() or not card_path(path).is_file():
        return
    wanted = [read_card(path).sha256]
    older = _read(card_path(path)).get("replaces")
    if isinstance(older, dict) and isinstance(older.get("sha256"), str):
        wanted.append(older["sha256"])
    found = checksum(path)
    if found not in wanted:
        raise JaxtrackError(
            f"{path}: the file is not the one of its card (sha256 {found[:12]}..., "
            f"{wanted[0][:12]}... expected); get both again"
        )


def shipped_names() -> list[str]:
    """Return the presets whose weights come with the package."""
    return sorted(p.stem for p in SHIPPED.glob("*.safetensors"))


def shipped_path(preset: str) -> pathlib.Path:
    """Return the file of a preset's shipped weights.

    Raises:
        JaxtrackError: the preset ships none, or its card speaks of another preset.
    """
    path = SHIPPED / f"{preset}.safetensors"
    if not path.is_file():
        known = shipped_names()
        have = f"; weights come with: {', '.join(known)}" if known else ""
        raise JaxtrackError(
            f"no weights come with preset {brief(repr(preset), 60)}: give a file of published or own "
            f"weights{have}"
        )
    card = read_card(path)
    if card.preset != preset:
        raise JaxtrackError(f"{card_path(path)}: the card is that of preset {card.preset!r}")
    return path
