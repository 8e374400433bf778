"""Attributes of the targets of OTB-100, as the benchmark publishes them."""

from __future__ import annotations

import functools

_NAMES = {
    "IV": "Illumination Variation",
    "SV": "Scale Variation",
    "OCC": "Occlusion",
    "DEF": "Deformation",
    "MB": "Motion Blur",
    "FM": "Fast Motion",
    "IPR": "In-Plane Rotation",
    "OPR": "Out-of-Plane Rotation",
    "OV": "Out-of-View",
    "BC": "Background Clutters",
    "LR": "Low Resolution",
}

_TARGETS = """
    Basketball IV OCC DEF OPR BC; Biker SV OCC MB FM OPR OV LR; Bird1 DEF FM OV; Bird2 OCC DEF FM
    IPR OPR; BlurBody SV DEF MB FM IPR; BlurCar1 MB FM; BlurCar2 SV MB FM; BlurCar3 MB FM; BlurCar4
    MB FM; BlurFace MB FM IPR; BlurOwl SV MB FM IPR; Board SV MB FM OPR OV BC; Bolt OCC DEF IPR OPR;
    Bolt2 DEF BC; Box IV SV OCC MB IPR OPR OV BC; Boy SV MB FM IPR OPR; Car1 IV SV BC LR; Car2 IV
    BC; Car24 IV SV BC; Car4 IV SV; CarDark IV BC; CarScale SV OCC FM IPR OPR; ClifBar SV OCC MB FM
    IPR OV BC; Coke IV OCC FM IPR OPR; Couple SV DEF FM OPR BC; Coupon OCC BC; Crossing SV DEF BC;
    Crowds IV DEF BC; Dancer SV DEF IPR OPR; Dancer2 DEF; David IV SV OCC DEF MB IPR OPR; David2 IPR
    OPR; David3 OCC DEF OPR BC; Deer MB FM IPR BC; Diving SV DEF IPR; Dog SV DEF OPR; Dog1 SV IPR
    OPR; Doll IV SV OCC IPR OPR; DragonBaby SV OCC MB FM IPR OPR OV; Dudek SV OCC DEF FM IPR OPR OV
    BC; FaceOcc1 OCC; FaceOcc2 IV OCC IPR OPR; Fish IV; FleetFace SV DEF MB FM IPR OPR; Football OCC
    IPR OPR BC; Football1 IPR OPR BC; Freeman1 SV IPR OPR; Freeman3 SV IPR OPR LR; Freeman4 SV OCC
    IPR OPR LR; Girl SV OCC IPR OPR; Girl2 SV OCC DEF MB OPR; Gym SV DEF IPR OPR; Human2 IV SV MB
    OPR; Human3 SV OCC DEF OPR BC; Human4-2 IV SV OCC DEF; Human5 SV OCC DEF; Human6 SV OCC DEF FM
    OPR OV; Human7 IV SV OCC DEF MB FM; Human8 IV SV DEF; Human9 IV SV DEF MB FM; Ironman IV SV OCC
    MB FM IPR OPR OV BC; Jogging-1 OCC DEF OPR; Jogging-2 OCC DEF OPR; Jump SV OCC DEF MB IPR OPR;
    Jumping MB FM; KiteSurf IV OCC IPR OPR; Lemming IV SV OCC FM OPR OV; Liquor IV SV OCC MB FM OPR
    OV BC; Man IV; Matrix IV SV OCC FM IPR OPR BC; Mhyang IV DEF OPR BC; MotorRolling IV SV MB FM
    IPR BC; MountainBike IPR OPR BC; Panda SV OCC DEF IPR OPR OV LR; RedTeam SV OCC IPR OPR LR;
    Rubik SV OCC IPR OPR; Shaking IV SV IPR OPR BC; Singer1 IV SV OCC OPR; Singer2 IV DEF IPR OPR
    BC; Skater SV DEF IPR OPR; Skater2 SV DEF FM IPR OPR; Skating1 IV SV OCC DEF OPR BC; Skating2-1
    SV OCC DEF FM OPR; Skating2-2 SV OCC DEF FM OPR; Skiing IV SV DEF IPR OPR LR; Soccer IV SV OCC
    MB FM IPR OPR BC; Subway OCC DEF BC; Surfer SV FM IPR OPR LR; Suv OCC IPR OV; Sylvester IV IPR
    OPR; Tiger1 IV OCC DEF MB FM IPR OPR; Tiger2 IV OCC DEF MB FM IPR OPR OV; Toy SV FM IPR OPR;
    Trans IV SV OCC DEF; Trellis IV SV IPR OPR BC; Twinnings SV OPR; Vase SV FM IPR; Walking SV OCC
    DEF LR; Walking2 SV OCC; Woman IV SV OCC DEF MB FM OPR
    """


@functools.cache
def attributes() -> dict[str, tuple[str, ...]]:
    """Return target -> names of its attributes.

    Reference:
        Wu et al., Object Tracking Benchmark (PAMI 2015), table 2 and the attribute files of its site.
    """
    found = {}
    for row in _TARGETS.split(";"):
        name, *codes = row.split()
        found[name] = tuple(_NAMES[code] for code in codes)
    return found
