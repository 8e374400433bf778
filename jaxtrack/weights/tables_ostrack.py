"""Name tables of OSTrack: its own checkpoints, and ViT-B pre-training files of MAE and timm."""

from __future__ import annotations

from jaxtrack.weights.names import NameTable

# botaoye/OSTrack ``.pth.tar``, entry "net": our modules carry these very names. Files saved from several
# GPUs may have "module." in front.
OSTRACK = NameTable(rename=((r"^module\.", ""),))
