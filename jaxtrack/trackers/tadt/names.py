"""Name tables of TADT's extractor: torchvision's ``vgg16`` and MatConvNet's ``imagenet-vgg-verydeep-16``.

MatConvNet's file is read by order, not by name: `matconvnet_state_dict` numbers its convolutions
``conv.<k>``, and ``conv.9`` is conv4_3. Both files hold more than the trunk up to conv4_3; the rest is left
out by name.
"""

from __future__ import annotations

from jaxtrack.models.vgg import NUMBERS
from jaxtrack.weights.names import NameTable

TORCHVISION_VGG16 = NameTable(
    ignore=(r"^features\.(24|26|28)\.", r"^classifier\."),
)
MATCONVNET_VGG16 = NameTable(
    rename=tuple((rf"^conv\.{k}\.", f"features.{n}.") for k, n in enumerate(NUMBERS.values())),
    ignore=(r"^conv\.(1[0-9])\.",),
    restore=tuple((rf"^features\.{n}\.", f"conv.{k}.") for k, n in enumerate(NUMBERS.values())),
)

TABLES = {
    "torchvision vgg16": TORCHVISION_VGG16,
    "imagenet-vgg-verydeep-16 (MatConvNet)": MATCONVNET_VGG16,
}
