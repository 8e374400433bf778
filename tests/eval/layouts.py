"""Raw results in the layouts of other toolkits, for tests of reading them."""

from pathlib import Path

import numpy as np


def write_results(folder, name, boxes, times=None, layout="pysot", repetition=None):
    """Write one sequence's boxes (n, 4) as a toolkit does, and seconds per frame where it keeps them."""
    separator = "\t" if layout == "pytracking" else ","
    target, clock = Path(folder) / f"{name}.txt", Path(folder) / f"{name}_time.txt"
    if repetition is not None:
        target = Path(folder) / name / f"{name}_{repetition:03d}.txt"
        clock = Path(folder) / name / f"{name}_time.txt"
    elif layout == "got10k":
        clock = Path(folder) / "times" / f"{name}_time.txt"
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(target, boxes, fmt="%.4f", delimiter=separator)
    if times is not None:
        clock.parent.mkdir(parents=True, exist_ok=True)
        rows = np.reshape(times, (-1, 1))
        if repetition is not None and repetition > 1:
            rows = np.concatenate([np.loadtxt(clock, delimiter=",", ndmin=2), rows], axis=1)
        np.savetxt(clock, rows, fmt="%.8f", delimiter=",")
