"""Official splits, frame ranges and exclusion lists of the tracking datasets, by name.

These are published facts about the datasets, not measurements of ours. Each table names its source.
"""

from __future__ import annotations

import re


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Benchmark "OTB-2013" (CVPR 2013, 50 videos + the second target of Jogging = 51 tracks).
OTB2013 = _names(
    """
    Basketball Bolt Boy Car4 CarDark CarScale Coke Couple Crossing David David2 David3 Deer Dog1
    Doll Dudek FaceOcc1 FaceOcc2 Fish FleetFace Football Football1 Freeman1 Freeman3 Freeman4 Girl
    Ironman Jogging Jumping Lemming Liquor Matrix Mhyang MotorRolling MountainBike Shaking Singer1
    Singer2 Skating1 Skiing Soccer Subway Suv Sylvester Tiger1 Tiger2 Trellis Walking Walking2
    Woman
    """
)

# "TB-50", the harder half of OTB-2015 (49 videos, Skating2 has two targets; Human4 counts by its
# second annotation file).
OTB50 = _names(
    """
    Basketball Biker Bird1 BlurBody BlurCar2 BlurFace BlurOwl Bolt Box Car1 Car4 CarDark CarScale
    ClifBar Couple Crowds David Deer Diving DragonBaby Dudek Football Freeman4 Girl Human3 Human4
    Human6 Human9 Ironman Jump Jumping Liquor Matrix MotorRolling Panda RedTeam Shaking Singer2
    Skating1 Skating2 Skiing Soccer Surfer Sylvester Tiger2 Trellis Walking Walking2 Woman
    """
)

# "OTB-100" / OTB-2015: 98 videos, 100 tracks (Jogging and Skating2 have two targets).
OTB100 = _names(
    """
    Basketball Biker Bird1 Bird2 BlurBody BlurCar1 BlurCar2 BlurCar3 BlurCar4 BlurFace BlurOwl
    Board Bolt Bolt2 Box Boy Car1 Car2 Car24 Car4 CarDark CarScale ClifBar Coke Couple Coupon
    Crossing Crowds Dancer Dancer2 David David2 David3 Deer Diving Dog Dog1 Doll DragonBaby Dudek
    FaceOcc1 FaceOcc2 Fish FleetFace Football Football1 Freeman1 Freeman3 Freeman4 Girl Girl2 Gym
    Human2 Human3 Human4 Human5 Human6 Human7 Human8 Human9 Ironman Jogging Jump Jumping KiteSurf
    Lemming Liquor Man Matrix Mhyang MotorRolling MountainBike Panda RedTeam Rubik Shaking Singer1
    Singer2 Skater Skater2 Skating1 Skating2 Skiing Soccer Subway Surfer Suv Sylvester Tiger1
    Tiger2 Toy Trans Trellis Twinnings Vase Walking Walking2 Woman
    """
)

# Frame numbers (first, last) of the videos whose annotation covers a part of the frames on disk.
# Source: the benchmark's own configuration (cvlab.hanyang.ac.kr/tracker_benchmark). Tiger1's file
# has all 354 rows; its initialisation omits the first five.
OTB_RANGES = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Tiger1": (6, 354),
}

# First frame number of the UAV123 targets that start inside a longer video (configSeqs.m of the
# benchmark); all others start at 1. The folder is the name without the final `_k`.
UAV123_STARTS = {
    "bird1_2": 775,
    "bird1_3": 1573,
    "car1_2": 751,
    "car1_3": 1627,
    "car6_2": 487,
    "car6_3": 1807,
    "car6_4": 2953,
    "car6_5": 3925,
    "car8_2": 1357,
    "car16_2": 415,
    "group1_2": 1333,
    "group1_3": 2515,
    "group1_4": 3925,
    "group2_2": 907,
    "group2_3": 1771,
    "group3_2": 1567,
    "group3_3": 2827,
    "group3_4": 4369,
    "person2_2": 1189,
    "person4_2": 1501,
    "person5_2": 877,
    "person7_2": 1249,
    "person8_2": 1075,
    "person12_2": 601,
    "person14_2": 847,
    "person14_3": 1813,
    "person17_2": 1501,
    "person19_2": 1243,
    "person19_3": 2791,
    "truck4_2": 577,
    "uav1_2": 1555,
    "uav1_3": 2473,
}

# LaSOT's test protocol II: four videos of each of the 70 classes.
_LASOT_TEST = """
    airplane 1 9 13 15; basketball 1 6 7 11; bear 2 4 6 17; bicycle 2 7 9 18; bird 2 3 15 17; boat
    3 4 12 17; book 3 10 11 19; bottle 1 12 14 18; bus 2 5 17 19; car 2 6 9 17; cat 1 3 18 20;
    cattle 2 7 12 13; chameleon 3 6 11 20; coin 3 6 7 18; crab 3 6 12 18; crocodile 3 4 10 14; cup
    1 4 7 17; deer 4 8 10 14; dog 1 7 15 19; drone 2 7 13 15; electricfan 1 10 18 20; elephant 1
    12 16 18; flag 2 3 5 9; fox 2 3 5 20; frog 3 4 9 20; gametarget 1 2 7 13; gecko 1 5 16 19;
    giraffe 2 10 13 15; goldfish 3 7 8 10; gorilla 4 6 9 13; guitar 3 8 10 16; hand 2 3 9 16; hat
    1 2 5 18; helmet 5 11 13 19; hippo 1 7 9 20; horse 1 4 12 15; kangaroo 2 5 11 14; kite 4 6 10
    15; leopard 1 7 16 20; licenseplate 6 12 13 15; lion 1 5 12 20; lizard 1 3 6 13; microphone 2
    6 14 16; monkey 3 4 9 17; motorcycle 1 3 9 18; mouse 1 8 9 17; person 1 5 10 12; pig 2 10 13
    18; pool 3 7 12 15; rabbit 10 13 17 19; racing 10 15 16 20; robot 1 5 8 19; rubicCube 1 6 14
    19; sepia 6 8 13 16; shark 2 3 5 6; sheep 3 5 7 9; skateboard 3 8 16 19; spider 14 16 18 20;
    squirrel 8 11 13 19; surfboard 4 5 8 12; swing 10 14 17 20; tank 6 9 14 16; tiger 4 6 12 18;
    train 1 7 11 20; truck 3 6 7 16; turtle 5 8 9 16; umbrella 2 9 17 19; volleyball 1 13 18 19;
    yoyo 7 15 17 19; zebra 10 14 16 17
    """

# How many targets the published splits have. Sources: the papers and sites of the data sets; the VOT reports.
# Temple-Color's archive holds 129, one more than its paper counts.
_SIZES = {
    ("otb2013", "otb2013"): 51,
    ("otb50", "otb50"): 50,
    ("otb100", "otb100"): 100,
    ("lasot", "train"): 1120,
    ("lasot", "test"): 280,
    ("lasot", "full"): 1400,
    ("lasot_ext", "full"): 150,
    ("got10k", "train"): 9335,
    ("got10k", "train_vot"): 8335,
    ("got10k", "val"): 180,
    ("got10k", "test"): 180,
    ("trackingnet", "test"): 511,
    ("uav123", "uav123"): 123,
    ("uav20l", "uav20l"): 20,
    ("nfs", "fps30"): 100,
    ("nfs", "fps240"): 100,
    ("tc128", "test"): 128,
    ("vot2016", "test"): 60,
    ("vot2017", "test"): 60,
    ("vot2018", "test"): 60,
    ("vot2019", "test"): 60,
    ("vot2018lt", "test"): 35,
    ("vot2019lt", "test"): 50,
}

# Numbers of the 1,000 GOT-10k training videos that may not be used to train trackers which are then
# tested on VOT (participation rules of VOT2019 and later; the list was published by GOT-10k).
_GOT10K_VOT_FORBIDDEN = """
    4 13 15 20 24 34 38 48 51 59 77 81 89 93 94 96 104 107 108 120 132 170 186 212 213 222 223 240
    246 249 266 268 287 293 305 316 319 322 331 334 354 361 368 382 401 417 448 454 458 466 475
    484 488 501 510 512 519 539 544 555 564 568 583 587 593 621 624 625 638 648 654 669 701 709
    712 731 734 737 744 746 748 762 764 765 766 767 775 783 790 829 857 859 867 872 880 884 909
    915 922 928 933 941 961 966 968 971 972 995 1003 1010 1011 1019 1021 1035 1039 1047 1057 1069
    1077 1079 1085 1088 1091 1104 1112 1113 1124 1128 1143 1145 1146 1148 1150 1154 1156 1157 1163
    1181 1184 1189 1200 1225 1264 1288 1296 1298 1299 1314 1319 1329 1331 1340 1374 1384 1394 1407
    1415 1430 1433 1453 1457 1471 1473 1480 1484 1489 1514 1537 1544 1545 1551 1558 1560 1562 1563
    1570 1576 1604 1615 1617 1618 1619 1624 1650 1651 1663 1673 1685 1692 1700 1722 1731 1732 1738
    1740 1742 1747 1759 1769 1781 1791 1794 1795 1818 1833 1836 1841 1852 1863 1865 1878 1898 1919
    1923 1929 1935 1938 1942 1955 1964 1966 1982 2005 2009 2035 2068 2073 2076 2084 2112 2115 2116
    2123 2125 2129 2139 2146 2166 2168 2176 2184 2190 2192 2211 2216 2233 2240 2247 2250 2252 2253
    2261 2274 2276 2292 2302 2304 2305 2320 2345 2355 2359 2363 2374 2376 2389 2393 2400 2408 2418
    2437 2440 2442 2454 2456 2465 2466 2474 2479 2484 2511 2514 2517 2523 2527 2534 2555 2587 2589
    2612 2627 2639 2652 2693 2699 2716 2725 2727 2730 2755 2756 2760 2763 2837 2841 2856 2862 2863
    2866 2877 2884 2886 2887 2907 2908 2909 2914 2920 2922 2936 2940 2944 2953 2961 2964 2996 3003
    3004 3007 3012 3027 3028 3033 3034 3036 3044 3056 3069 3078 3079 3095 3096 3107 3108 3127 3128
    3129 3132 3146 3155 3173 3208 3239 3245 3246 3262 3275 3283 3296 3308 3310 3313 3317 3318 3354
    3379 3384 3396 3401 3423 3435 3438 3442 3444 3455 3456 3464 3466 3474 3482 3488 3502 3515 3520
    3530 3551 3570 3571 3578 3583 3590 3593 3618 3626 3650 3652 3663 3690 3704 3709 3716 3721 3722
    3724 3729 3756 3768 3782 3786 3788 3791 3820 3821 3827 3834 3835 3839 3843 3854 3856 3881 3899
    3904 3906 3913 3937 3940 3943 3950 3972 3974 3978 3981 3982 4003 4004 4008 4012 4013 4030 4036
    4040 4052 4054 4055 4057 4063 4068 4072 4075 4078 4082 4102 4103 4105 4111 4120 4122 4124 4142
    4158 4170 4175 4181 4190 4193 4194 4199 4202 4217 4225 4229 4230 4234 4241 4246 4249 4255 4268
    4276 4292 4293 4295 4296 4302 4324 4337 4342 4351 4356 4376 4380 4395 4398 4399 4408 4430 4439
    4440 4462 4473 4476 4478 4481 4483 4484 4503 4513 4517 4533 4536 4594 4595 4607 4619 4626 4642
    4646 4652 4658 4660 4661 4668 4673 4679 4694 4702 4709 4717 4757 4768 4824 4826 4833 4839 4843
    4852 4862 4865 4878 4880 4881 4902 4906 4920 4950 4951 4952 4973 4983 4984 4990 4993 4995 5004
    5007 5022 5024 5040 5046 5047 5058 5063 5072 5097 5098 5099 5108 5113 5119 5126 5146 5166 5191
    5207 5255 5269 5280 5310 5317 5319 5334 5338 5339 5354 5364 5382 5385 5389 5390 5396 5398 5399
    5401 5413 5415 5420 5457 5465 5488 5493 5510 5523 5538 5553 5556 5575 5577 5582 5594 5606 5611
    5636 5639 5642 5651 5652 5653 5681 5686 5689 5701 5712 5716 5724 5731 5732 5734 5741 5764 5767
    5788 5791 5800 5813 5816 5830 5852 5876 5877 5884 5910 5929 5943 5958 5995 6002 6010 6018 6021
    6022 6040 6046 6057 6075 6087 6099 6115 6126 6129 6142 6161 6163 6193 6195 6204 6206 6215 6216
    6220 6224 6232 6241 6247 6287 6300 6315 6318 6322 6337 6341 6344 6348 6349 6363 6366 6376 6378
    6395 6402 6406 6412 6413 6427 6448 6459 6464 6474 6477 6482 6483 6496 6498 6499 6505 6506 6514
    6533 6563 6569 6573 6584 6585 6587 6591 6592 6598 6605 6631 6633 6644 6651 6654 6672 6717 6728
    6736 6740 6746 6754 6759 6766 6789 6796 6797 6817 6818 6849 6851 6855 6872 6879 6900 6912 6926
    6936 6955 6968 6969 6979 6980 6984 6986 6991 7017 7032 7035 7048 7064 7065 7075 7077 7081 7083
    7089 7106 7107 7131 7138 7144 7150 7168 7170 7177 7181 7183 7190 7208 7220 7223 7247 7273 7284
    7289 7293 7294 7296 7316 7322 7355 7360 7362 7364 7388 7392 7403 7404 7426 7427 7443 7446 7461
    7482 7489 7499 7503 7507 7515 7521 7523 7525 7535 7559 7566 7582 7586 7596 7616 7623 7634 7637
    7643 7645 7653 7660 7661 7663 7672 7700 7710 7714 7717 7718 7737 7741 7746 7763 7769 7780 7803
    7821 7825 7839 7848 7873 7877 7882 7894 7905 7908 7911 7914 7918 7929 7936 7938 7965 7969 7973
    7987 7999 8001 8034 8050 8056 8068 8073 8089 8095 8101 8128 8139 8147 8154 8171 8180 8193 8194
    8201 8212 8226 8230 8231 8236 8239 8241 8243 8249 8250 8273 8278 8291 8310 8311 8317 8319 8331
    8332 8344 8369 8377 8386 8392 8396 8432 8438 8439 8440 8442 8443 8455 8471 8484 8490 8492 8499
    8502 8507 8520 8525 8568 8587 8589 8591 8606 8612 8623 8628 8633 8634 8645 8656 8668 8670 8702
    8714 8723 8731 8732 8734 8747 8787 8794 8805 8829 8837 8838 8853 8878 8879 8880 8891 8895 8907
    8909 8922 8935 8939 8972 8975 8976 9002 9031 9040 9052 9056 9057 9066 9076 9103 9115 9117 9127
    9137 9145 9150 9155 9156 9160 9179 9181 9196 9203 9216 9219 9222 9224 9229 9231 9235 9242 9263
    9265 9280 9282 9300 9301 9329 9332 9334
    """


def lasot_test() -> frozenset[str]:
    """Name the 280 test videos of LaSOT (protocol II).

    Returns:
        Names such as ``airplane-1``.

    Reference:
        Fan et al., LaSOT (CVPR 2019), the evaluation toolkit's testing_set.txt.
    """
    names = set()
    for group in _LASOT_TEST.split(";"):
        category, *numbers = group.split()
        names |= {f"{category}-{n}" for n in numbers}
    return frozenset(names)


def size(dataset: str, split: str) -> int | None:
    """Say how many videos a published split has; where a video has several targets, each counts.

    Args:
        dataset: dataset name, as ``jaxtrack.data.layouts`` spells it.
        split: split name; of OTB, a benchmark's own.

    Returns:
        The number; None where none is published, as for a user's own videos.
    """
    return _SIZES.get((dataset, split), _SIZES.get((split, split)))


def got10k_vot_forbidden() -> frozenset[str]:
    """Name the GOT-10k training videos that are forbidden before a test on VOT.

    Returns:
        1,000 names such as ``GOT-10k_Train_000004``.

    Reference:
        VOT2019 participation rules; the same list is in OSTrack's and STARK's training code.
    """
    return frozenset(f"GOT-10k_Train_{int(n):06d}" for n in _GOT10K_VOT_FORBIDDEN.split())


def uav123_folder(name: str) -> str:
    """Name the folder that holds a UAV123 target's frames.

    Args:
        name: target name: ``car6_2`` is a stretch of ``car6``, ``car1_s`` a video of its own.

    Returns:
        The folder's name.
    """
    match = re.fullmatch(r"(.+)_\d+", name)
    return match.group(1) if match else name
