"""The one exception that a user's mistake raises."""

from __future__ import annotations


class JaxtrackError(Exception):
    """A user's mistake or an unusable input, told in one line: what, where, and what to do.

    Command lines print it without a traceback and exit with status 1 (or 2 for usage); libraries may
    catch it. Bugs raise ordinary exceptions and keep their traceback.
    """
