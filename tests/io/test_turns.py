"""Processes that prepare side by side and measure one at a time; here each is an object of its own."""

import sys
import threading

import pytest

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.turns import Turns

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such locks")


@pytest.fixture
def take_part(tmp_path):
    """Return a process that takes part, with the seconds that it waits."""
    made = []

    def make(patience=20.0):
        made.append(Turns(tmp_path / "turn", patience))
        return made[-1]

    yield make
    for turns in made:
        turns.close()


def test_nobody_waits_without_a_file():
    with Turns(None).measuring() as quiet:
        assert quiet


def test_a_measurement_waits_for_preparations(take_part):
    one, other = take_part(), take_part()
    done = []

    def measure():
        with other.measuring() as quiet:
            done.append(quiet)

    with one.preparing():
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join(0.2)
        assert not done
    thread.join(20)
    assert done == [True]


def test_a_measurement_does_not_wait_for_ever(take_part):
    slow, other = take_part(), take_part(0.1)
    with slow.preparing():
        with other.measuring() as quiet:
            assert not quiet
        with other.measuring() as quiet:  # nothing is left held
            assert not quiet
    with other.measuring() as quiet:
        assert quiet


def test_one_measures_at_a_time(take_part):
    one, other = take_part(0.0), take_part(0.0)
    done = []

    def measure():
        with other.measuring():
            done.append("other")

    with take_part().preparing(), one.measuring() as quiet:
        assert not quiet
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join(0.2)
        assert not done
    thread.join(20)
    assert done == ["other"]


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(JaxtrackError, match="cannot be opened"):
        Turns(tmp_path / "no" / "turn")
