"""Every number of every config says which values it may take, and is held to it."""

import dataclasses
import math
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jaxtrack import trackers
from jaxtrack.base import init, track_frame
from jaxtrack.errors import JaxtrackError, UsageError
from jaxtrack.ranges import (
    Count,
    NotNegative,
    OddCount,
    PositiveShare,
    Range,
    Share,
    check_ranges,
    choices_of,
    exceeds,
    ranges_of,
)
from jaxtrack.settings import explained, replaced
from train import data, presets, run

# Numbers that may take every value: scores are compared with them, or they are signed by nature.
FREE = {
    ("LostRule", "below"),
    ("LostRule", "above"),
    ("TemplateUpdate", "above"),
    ("ColourCue", "above"),
    ("Extractor", "pixel_offset"),
    ("Extractor", "pixel_scale"),
    ("mlt.Config", "tau"),
    ("mlt.Config", "gradient_factor"),
}


class Inner(NamedTuple):
    steps: Count = 3


@dataclasses.dataclass(frozen=True)
class Example:
    share: Share = 0.5
    sides: tuple[OddCount, ...] = (1, 3)
    span: Annotated[tuple[float, float], Range(above=0)] = (1.0, 2.0)
    limit: NotNegative | None = None
    part: PositiveShare = 1.0
    inner: Inner = dataclasses.field(default_factory=Inner)
    free: float = 0.0
    kind: Literal["plain", "fancy"] = "plain"

    def __post_init__(self):
        check_ranges(self)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"share": 1.5}, "share is 1.5; from 0 to 1"),
        ({"share": math.nan}, "share is nan; from 0 to 1"),
        ({"share": -1}, "share is -1; from 0 to 1"),
        ({"sides": (1, 4)}, "sides is 1, 4; odd, 1 or more"),
        ({"span": (0.0, 1.0)}, "span is 0, 1; above 0"),
        ({"limit": -1.0}, "limit is -1; 0 or more"),
        ({"limit": math.inf}, "limit is inf; 0 or more, finite"),
        ({"part": 0.0}, "part is 0; above 0, at most 1"),
        ({"inner": Inner(0)}, "inner.steps is 0; 1 or more"),
        ({"kind": "fanzy"}, "kind is 'fanzy'; nearest: fancy, plain"),
        ({"kind": 1}, "kind is 1; known: plain, fancy"),
    ],
)
def test_what_a_field_does_not_take_is_named(fields, line):
    with pytest.raises(JaxtrackError, match=f"^{line}$"):
        Example(**fields)


def test_all_else_passes():
    Example(0.0, (), (1e9, 1.0), 0.0, 1.0, Inner(1), -math.inf)
    Example(share=jnp.float32(7))  # known only when a program runs
    assert jax.jit(lambda x: Example(share=x).share * 2)(3.0) == 6.0
    assert exceeds(2, 1.0)
    assert not exceeds(1, 1)
    assert not exceeds(jnp.float32(2), 1)


def records_of(value):
    """Yield every record in a config or preset."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        for entry in value:
            yield from records_of(entry)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from records_of(getattr(value, field.name))


def test_every_word_of_every_preset_is_held_to_its_choices():
    """Whoever builds a config by hand has nobody else to tell that a word is misspelt."""
    found = {
        type(trackers.get(name).config): trackers.get(name).config for name in trackers.names()
    }
    records = [*found.values(), *presets.all_presets().values()]
    kinds = {type(record): record for value in records for record in records_of(value)}
    tried = [(kind, name) for kind in kinds for name, _ in choices_of(kind)]
    assert len(tried) > 15
    for kind, name in tried:
        with pytest.raises(JaxtrackError, match=f"{name} is 'no such word'; known: "):
            dataclasses.replace(kinds[kind], **{name: "no such word"})


def numbers_of(value, found):
    """Collect (class, field) of every number below a config, with the class itself."""
    kind = type(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        for entry in value:
            numbers_of(entry, found)
        return
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    else:
        names = getattr(value, "_fields", ())
    for name in names:
        inner = getattr(value, name)
        entries = inner if type(inner) is tuple and inner else (inner,)
        if all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in entries):
            found.add((kind, name))
        else:
            numbers_of(inner, found)


def test_every_number_of_every_preset_says_its_range():
    found = set()
    for name in trackers.names():
        numbers_of(trackers.get(name), found)
    for preset in presets.all_presets().values():
        numbers_of(preset, found)
    assert len(found) > 150
    for kind, name in found:
        marked = {field for field, _ in ranges_of(kind)}
        home = f"{kind.__module__.split('.')[-2]}.{kind.__name__}"
        free = {(kind.__name__, name), (home, name)} & FREE
        assert bool(free) != (name in marked), (kind, name)


def test_every_field_is_explained_and_what_is_shown_can_be_given_back():
    for name in trackers.names():
        config = trackers.get(name).config
        fields = list(explained(config))
        assert all(field.meaning for field in fields), name
        assert replaced(config, [f"{field.path}={field.value}" for field in fields]) == config
    for name in presets.all_presets():
        preset = presets.get(name)
        fields = list(presets.explained(preset))
        assert all(field.meaning for field in fields), name
        assert len(fields) > 50
        assert presets.changed(preset, [f"{f.path}={f.value}" for f in fields]) == preset


def test_a_run_can_be_told_anew_by_its_changes():
    """Of fields in the entries of a tuple as of all others: what a card and --resume say."""
    for name in presets.all_presets():
        preset = presets.get(name)
        rates = [f.path for f in presets.explained(preset) if f.path.endswith(".rate")]
        assert not preset.optim.groups or "optim.groups.0.rate" in rates
        changed = presets.changed(preset, [f"{path}=.037" for path in rates])
        told = presets.changes(changed)
        assert set(told) == {f"{path}=0.037" for path in rates}
        assert presets.changed(preset, told) == changed


def test_configs_of_others_are_listed_as_far_as_they_say():
    @dataclasses.dataclass(frozen=True)
    class Bare:
        rate: "Unknown" = 0.5  # noqa: F821  # type: ignore[name-defined]

    assert [tuple(field) for field in explained(Bare())] == [("rate", "0.5", "", "")]
    assert list(explained("a text")) == []


def test_built_data_are_cut_as_the_synthetic_patches():
    preset = presets.changed(presets.get("siamfc-tiny"), ["task.patch.search.size=231"])
    cuts = data.patches_of(preset.task)
    assert cuts.search == preset.task.config.patch.search
    assert cuts.search.size == 231
    assert presets.changed(presets.get("siamfc-tiny"), presets.changes(preset)) == preset
    meta = presets.changed(presets.get("mlt-tiny-meta"), ["task.patches=12"])
    assert data.patches_of(meta.task).patches == 12


def test_a_recipes_fields_are_shown(capsys):
    words = [
        "mlt-tiny-meta",
        "--fields",
        "--set",
        "optim.rate=.5",
        "--set",
        "optim.groups.0.rate=0",
    ]
    assert run.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "optim.rate=0.5  (0 or more)" in lines
    assert "optim.groups.0.from_epoch=0  (0 or more)" in lines
    assert "task.given=any  (any|first|likest)" in lines
    assert "    probability of grey, per crop." in lines


def test_fields_of_a_named_tuple():
    tracker = trackers.get("tadt-tiny", **{"ridge.steps": 7})
    assert tracker.config.ridge.steps == 7
    assert tracker.config.ridge.bounded
    with pytest.raises(UsageError, match=r"ridge\.steps=-1: steps is -1; 0 or more"):
        trackers.get("tadt-tiny", **{"ridge.steps": -1})
    with pytest.raises(UsageError, match=r"Descent has no field 'step'; nearest: steps"):
        trackers.get("tadt-tiny", **{"ridge.step": 1})


@pytest.mark.parametrize(
    ("preset", "changes", "line"),
    [
        ("siamfc-tiny", {"window_influence": -4.0}, "window_influence is -4; from 0 to 1"),
        ("siamfc-tiny", {"scale_count": 2}, "scale_count is 2; odd, 1 or more"),
        ("siamfc-tiny", {"exemplar_size": 20}, "exemplar_size is 20, of which .* 83 or more"),
        ("siamfc-tiny", {"instance_size": 60}, "instance_size is 60, below exemplar_size = 127"),
        ("siamfc-tiny", {"network.groups": (7, 1, 1, 1, 1)}, "7 groups, which 3 and"),
        ("siamfc-tiny", {"network.channels": (8, 8)}, "channels holds 2 numbers; 5 are wanted"),
        ("mlt-tiny", {"instance_size": 100}, "instance_size is 100, below exemplar_size = 127"),
        ("mlt-tiny", {"samples": 0}, "samples is 0; 1 or more"),
        ("siamrpnpp-tiny", {"network.kernels": (7,)}, "kernels holds 1 numbers; 5 are wanted"),
        ("siamrpnpp-tiny", {"ratios": (1.0,)}, "make 1 anchors, but the network has 5"),
        ("siamrpnpp-tiny", {"instance_size": 100}, "instance_size is 100, below exemplar_size"),
        ("siamrpnpp-tiny", {"confidence_low": 0.999}, "above confidence_high"),
        ("siamrpnpp-r50", {"network.neck": (256,)}, "neck has 1 widths for 3 levels"),
        ("siamrpnpp-r50", {"network.fusion": "single"}, "is for one, the others for several"),
        ("ostrack-tiny", {"heads": 7}, "heads is 7, which does not divide width = 96"),
        ("ostrack-tiny", {"search_size": 4}, "search_size is 4, less than one patch of 8"),
        ("ostrack-tiny", {"stem": (32, 96)}, "which make patches of 4, and patch is 8"),
        ("ostrack-tiny", {"stem": (32, 64, 90)}, "stem ends with 90 channels, and width is 96"),
        ("ostrack-tiny", {"ce_keep_ratios": (0.7,)}, "names 2 blocks, ce_keep_ratios 1 ratios"),
        ("ostrack-tiny", {"ce_blocks": (1, 9)}, "names block 9; there are 4"),
        ("tadt-tiny", {"min_size": 100.0}, "min_size is 100, above max_size"),
    ],
)
def test_settings_that_make_no_tracker(preset, changes, line):
    with pytest.raises(UsageError, match=line):
        trackers.get(preset, **changes)


@pytest.mark.parametrize(
    ("preset", "change", "line"),
    [
        ("siamfc-tiny", "task.patch.border_rate=4", "border_rate is 4; from 0 to 1"),
        ("siamfc-tiny", "task.world.real.exchange=-.1", "exchange is -0.1; from 0 to 1"),
        ("siamfc-tiny", "task.world.target_size=80,20", "80 to 20; the smallest comes first"),
        ("siamfc-tiny", "task.search.grey=2", "grey is 2; from 0 to 1"),
        ("siamfc-tiny", "optim.rate=-1", "rate is -1; 0 or more"),
        ("siamfc-tiny", "optim.schedule.rise=1.5", "rise is 1.5; from 0 to 1"),
        ("siamfc-tiny", "task.template.size=64", "template.size is 64, but the tracker takes 127"),
        ("siamfc-tiny", "task.search.size=100", "search.size is 100, below the template's 127"),
        ("siamfc-tiny", "task.search.size=1000", "patch.search.nominal 191: both are the side"),
        ("siamfc-tiny", "task.patch.search.size=50", "patch.search.size is 50, below search.size"),
        ("mlt-tiny-meta", "task.context.size=191", "context.size is 191 and patch.search.nominal"),
        ("siamrpnpp-tiny", "task.tracker.exemplar_size=95", "127, but the tracker takes 95"),
        ("siamrpnpp-tiny", "task.low=.9", "low is 0.9, above high = 0.6"),
        ("siamrpnpp-tiny", "task.positives=100", "positives is 100, above total = 64"),
        ("ostrack-tiny", "task.tracker.search_size=160", "tracker.search_size is 160 and patch"),
    ],
)
def test_settings_that_make_no_training(preset, change, line):
    with pytest.raises(UsageError, match=line):
        presets.changed(presets.get(preset), [change])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"base_size": 3}, "maps of 21x21 cells of instance_size = 287, but .* over 24x24"),
        ({"stride": 4}, "over 41x41"),
        ({"network.neck_crop": 1}, "finds no place in 1x1"),
        ({"exemplar_size": 3}, "a kernel of 7x7 finds no place in 3x3: the image, or crop"),
        ({"exemplar_size": 9}, "a window of 3x3 finds no place in 2x2"),
    ],
)
def test_sizes_that_only_the_network_can_tell(changes, line):
    tracker = trackers.get("siamrpnpp-tiny", **changes)
    frame, box = jnp.zeros((96, 128, 3), jnp.uint8), jnp.asarray([30.0, 30, 20, 20])

    def run():
        variables = tracker.init_variables(tracker.config, jax.random.key(0))
        state = init(tracker, variables, frame, box)
        return track_frame(tracker, variables, state, frame)

    with pytest.raises(JaxtrackError, match=line):
        jax.eval_shape(run)
