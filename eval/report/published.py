"""Headline numbers that papers and public repositories print for the five systems, with their source.

Only what could be traced is here; a dash means that no source was found. Values are success AUC (or AO)
and precision as fractions.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One printed result: system, benchmark, the numbers as printed, and where they stand."""

    system: str
    benchmark: str
    numbers: str
    source: str


PUBLISHED: tuple[Published, ...] = (
    Published(
        "SiamFC (3 scales)", "otb", "AUC .582, precision .771", "OTB-100 raw results, printed"
    ),
    Published("siamfc-pytorch", "otb", "AUC .578, precision .765", "its README"),
    Published("SiamFC (3 scales)", "lasot", "AUC .336, precision .339", "LaSOT benchmark"),
    Published("siamfc-pytorch", "got10k", "AO .355, SR.5 .390, SR.75 .118", "its README"),
    Published("SiamFC", "trackingnet", "AUC .571, precision .533", "TrackingNet benchmark"),
    Published("SiamRPN++ R50", "otb", "AUC .696, precision .914", "PySOT model zoo"),
    Published("SiamRPN++ AlexNet", "otb", "AUC .666, precision .876", "PySOT model zoo"),
    Published("SiamRPN++ R50", "lasot", "AUC .496, precision .491", "SiamRPN++, table 5"),
    Published("SiamRPN++ R50", "trackingnet", "AUC .733, precision .694", "SiamRPN++, table 6"),
    Published("SiamRPN++ R50", "uav123", "AUC .613, precision .807", "SiamRPN++, figure 7"),
    Published("SiamRPN++ R50", "vot2018", "A .600, R .234, EAO .414", "SiamRPN++, table 3"),
    Published("SiamRPN++ MobileNetV2", "vot2018", "A .586, R .229, EAO .410", "PySOT model zoo"),
    Published("SiamRPN++ AlexNet", "vot2018", "A .576, R .290, EAO .352", "PySOT model zoo"),
    Published("TADT", "otb", "AUC .660, precision .866", "TADT, figure 5"),
    Published("TADT-python", "otb", "AUC .656", "its README"),
    Published("TADT", "tc128", "AUC .562", "TADT, figure 6"),
    Published("OSTrack-256", "lasot", "AUC .691, precision .752", "OSTrack, table 1"),
    Published("OSTrack-384", "lasot", "AUC .711, precision .776", "OSTrack, table 1"),
    Published("OSTrack-256", "got10k", "AO .710", "OSTrack, table 1"),
    Published("OSTrack-384", "got10k", "AO .737, SR.5 .832, SR.75 .708", "OSTrack, table 1"),
    Published("OSTrack-256", "trackingnet", "AUC .831, precision .820", "OSTrack, table 1"),
    Published("OSTrack-384", "trackingnet", "AUC .839, precision .832", "OSTrack, table 1"),
    Published("OSTrack-256", "uav123", "AUC .683", "its README"),
    Published("OSTrack-384", "uav123", "AUC .707", "its README"),
)


def of_benchmark(benchmark: str) -> list[Published]:
    """The printed results on one benchmark."""
    return [entry for entry in PUBLISHED if entry.benchmark == benchmark]
