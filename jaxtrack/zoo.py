"""What is known of the weights behind each preset: where they come from, and what they should score.

Scores are those that a paper or a repository prints, each with its source; `python -m eval.run` puts them
beside its own where preset, benchmark and split agree. What could not be traced is left out, not guessed: the
published projects state neither sizes nor checksums of their files, so only shipped files have them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated

from jaxtrack import cli, weights
from jaxtrack.errors import UsageError, unknown


@dataclasses.dataclass(frozen=True)
class Published:
    """A result that somebody printed.

    Attributes:
        layout: the data set, as `jaxtrack.data.layouts` calls it, or "synthetic" or "synthetic-hard".
        split: its split.
        sequences: how many sequences the whole of it has.
        numbers: metric -> fraction, by the names that `eval.score` prints to JSON.
        source: where it stands.
    """

    layout: str
    split: str
    sequences: int
    numbers: Mapping[str, float]
    source: str

    @property
    def label(self) -> str:
        """Data set and split in one word or two."""
        if self.layout in (self.split, "otb") or self.split in ("test", "full", "fps30"):
            return self.split if self.layout == "otb" else self.layout
        return f"{self.layout} {self.split}"


@dataclasses.dataclass(frozen=True)
class Model:
    """The weights behind a preset.

    Attributes:
        file: the published name of the file.
        project: who publishes it.
        size: bytes; None where it is not known.
        sha256: checksum; None where it is not known.
        scores: what it should score.
    """

    file: str
    project: str
    size: int | None = None
    sha256: str | None = None
    scores: tuple[Published, ...] = ()


def _otb(auc: float, precision: float | None, source: str) -> Published:
    numbers = {"auc": auc} if precision is None else {"auc": auc, "precision_20px": precision}
    return Published("otb", "otb100", 100, numbers, source)


def _uav(auc: float, source: str, precision: float | None = None) -> Published:
    numbers = {"auc": auc} if precision is None else {"auc": auc, "precision_20px": precision}
    return Published("uav123", "uav123", 123, numbers, source)


def _lasot(auc: float, norm: float, precision: float, source: str) -> Published:
    numbers = {"auc": auc, "norm_precision_0_20": norm, "precision_20px": precision}
    return Published("lasot", "test", 280, numbers, source)


def _trackingnet(auc: float, norm: float, precision: float, source: str) -> Published:
    numbers = {
        "auc": auc,
        "norm_precision_auc_0_to_0_50": norm,
        "precision_auc_0_to_50px": precision,
    }
    return Published("trackingnet", "test", 511, numbers, source)


def _vot2018(accuracy: float, robustness: float, eao: float, source: str) -> Published:
    numbers = {"accuracy": accuracy, "robustness": robustness, "eao": eao}
    return Published("vot2018", "test", 60, numbers, source)


_SIAMFC_PYTORCH = "README of huanglianghua/siamfc-pytorch"
_ZOO = "PySOT model zoo"
_OSTRACK = "OSTrack, table 1"
_OSTRACK_README = "README of botaoye/OSTrack"
_SYNTHETIC = "measured, eval/RESULTS.md"


def _shipped(preset: str, auc: float | None = None, precision: float | None = None) -> Model:
    numbers = {"auc": auc, "precision_20px": precision}
    known = {k: v for k, v in numbers.items() if v is not None}
    scores = (Published("synthetic", "synthetic", 40, known, _SYNTHETIC),) if known else ()
    return Model(f"{preset}.safetensors", "shipped with jaxtrack", scores=scores)


MODELS: dict[str, Model] = {
    "siamfc": Model(
        "siamfc_alexnet_e50.pth",
        "huanglianghua/siamfc-pytorch",
        scores=(
            _otb(0.578, 0.765, _SIAMFC_PYTORCH),
            Published(
                "got10k",
                "test",
                180,
                {"ao": 0.355, "sr_0.50": 0.390, "sr_0.75": 0.118},
                _SIAMFC_PYTORCH,
            ),
            _uav(0.523, _SIAMFC_PYTORCH, 0.731),
        ),
    ),
    "siamrpnpp-r50": Model(
        "siamrpn_r50_l234_dwxcorr/model.pth",
        "STVIR/pysot",
        scores=(
            _vot2018(0.601, 0.234, 0.415, _ZOO),
            _lasot(0.496, 0.569, 0.491, "SiamRPN++, LaSOT figure"),
            _trackingnet(0.733, 0.800, 0.694, "SiamRPN++, TrackingNet table"),
            _uav(0.613, "SiamRPN++, UAV123 figure", 0.807),
        ),
    ),
    "siamrpnpp-r50-otb": Model(
        "siamrpn_r50_l234_dwxcorr_otb/model.pth", "STVIR/pysot", scores=(_otb(0.696, 0.914, _ZOO),)
    ),
    "siamrpnpp-mobilev2": Model(
        "siamrpn_mobilev2_l234_dwxcorr/model.pth",
        "STVIR/pysot",
        scores=(_vot2018(0.586, 0.229, 0.410, _ZOO),),
    ),
    "siamrpnpp-alex": Model(
        "siamrpn_alex_dwxcorr/model.pth",
        "STVIR/pysot",
        scores=(_vot2018(0.576, 0.290, 0.352, _ZOO),),
    ),
    "siamrpnpp-alex-otb": Model(
        "siamrpn_alex_dwxcorr_otb/model.pth", "STVIR/pysot", scores=(_otb(0.666, 0.876, _ZOO),)
    ),
    "siamrpnpp-r50-lt": Model(
        "siamrpn_r50_l234_dwxcorr_lt/model.pth",
        "STVIR/pysot",
        scores=(Published("vot2018lt", "test", 35, {"f1": 0.629}, _ZOO),),
    ),
    "ostrack-256": Model(
        "vitb_256_mae_32x4_ep300/OSTrack_ep0300.pth.tar",
        "botaoye/OSTrack",
        scores=(Published("lasot", "test", 280, {"auc": 0.687}, "OSTrack, table 3"),),
    ),
    "ostrack-256-ce": Model(
        "vitb_256_mae_ce_32x4_ep300/OSTrack_ep0300.pth.tar",
        "botaoye/OSTrack",
        scores=(
            _lasot(0.691, 0.787, 0.752, _OSTRACK),
            _trackingnet(0.831, 0.878, 0.820, _OSTRACK),
            Published("lasot_ext", "full", 150, {"auc": 0.474}, _OSTRACK),
            _uav(0.683, _OSTRACK_README),
        ),
    ),
    "ostrack-384": Model("vitb_384_mae_32x4_ep300/OSTrack_ep0300.pth.tar", "botaoye/OSTrack"),
    "ostrack-384-ce": Model(
        "vitb_384_mae_ce_32x4_ep300/OSTrack_ep0300.pth.tar",
        "botaoye/OSTrack",
        scores=(
            _lasot(0.711, 0.811, 0.776, _OSTRACK),
            _trackingnet(0.839, 0.885, 0.832, _OSTRACK),
            Published("lasot_ext", "full", 150, {"auc": 0.505}, _OSTRACK),
            _uav(0.707, _OSTRACK_README),
            Published(
                "nfs", "fps30", 100, {"auc": 0.665}, "OSTrack, table of NFS, UAV123 and TNL2K"
            ),
        ),
    ),
    "ostrack-256-got10k": Model(
        "vitb_256_mae_ce_32x4_got10k_ep100/OSTrack_ep0100.pth.tar",
        "botaoye/OSTrack",
        scores=(Published("got10k", "test", 180, {"ao": 0.710}, _OSTRACK),),
    ),
    "tadt": Model("imagenet-vgg-verydeep-16.mat", "MatConvNet"),
    "tadt-code": Model(
        "imagenet-vgg-verydeep-16.mat",
        "MatConvNet",
        scores=(_otb(0.656, None, "README of ZikunZhou/TADT-python"),),
    ),
    "tadt-matlab": Model(
        "imagenet-vgg-verydeep-16.mat",
        "MatConvNet",
        scores=(
            _otb(0.660, 0.866, "TADT, OTB-2015 figure"),
            Published(
                "otb",
                "otb2013",
                51,
                {"auc": 0.680, "precision_20px": 0.896},
                "TADT, OTB-2013 figure",
            ),
            Published("tc128", "test", 128, {"auc": 0.562}, "TADT, Temple-Color figure"),
            Published(
                "vot2016", "test", 60, {"accuracy": 0.55, "eao": 0.299}, "TADT, VOT-2016 table"
            ),
        ),
    ),
    "siamfc-tiny": _shipped("siamfc-tiny", 0.625, 0.875),
    "siamrpnpp-tiny": _shipped("siamrpnpp-tiny", 0.650, 0.874),
    "mlt-tiny": _shipped("mlt-tiny", 0.630, 0.864),
    "ostrack-tiny": _shipped("ostrack-tiny", 0.609, 0.858),
    "tadt-tiny": _shipped("tadt-tiny", 0.542, 0.771),
    "siamrpnpp-small-imagenet": _shipped("siamrpnpp-small-imagenet", 0.686, 0.929),
}

_SHORT = {
    "auc": "AUC",
    "precision_20px": "P",
    "precision_auc_0_to_50px": "P",
    "norm_precision_0_20": "NP",
    "norm_precision_auc_0_to_0_50": "NP",
    "ao": "AO",
    "sr_0.50": "SR.50",
    "sr_0.75": "SR.75",
    "accuracy": "A",
    "robustness": "R",
    "eao": "EAO",
    "f1": "F1",
}


def find(preset: str) -> Model | None:
    """Return the weights behind a preset, with size and checksum where they are shipped; None if unknown.

    Args:
        preset: the preset.
    """
    model = MODELS.get(preset)
    if model is None or not model.project.startswith("shipped"):
        return model
    data = weights.shipped_path(preset).read_bytes()
    return dataclasses.replace(model, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def fraction(value: float) -> str:
    """Return a fraction as papers print it: .578."""
    return f"{value:.3f}".replace("0.", ".", 1)


def numbers_text(numbers: Mapping[str, float]) -> str:
    """Return metrics in short: "AUC .578, P .765"."""
    return ", ".join(f"{_SHORT.get(k, k)} {fraction(v)}" for k, v in numbers.items())


def table(presets: Sequence[str] = ()) -> str:
    """Return the zoo as lines of text: file, project, size, checksum, and the scores to expect.

    Args:
        presets: which ones; none: all.

    Raises:
        UsageError: a preset behind which nothing is known.
    """
    lines = []
    for preset in presets or MODELS:
        model = find(preset)
        if model is None:
            raise UsageError(str(unknown("model of the zoo", preset, MODELS)))
        lines.append(f"{preset:20s} {model.file}  ({model.project})")
        if model.size is not None:
            lines.append(f"{'':20s} {model.size:,} bytes, sha256 {model.sha256}")
        lines += [
            f"{'':20s} {p.label}: {numbers_text(p.numbers)} ({p.source})" for p in model.scores
        ]
    return "\n".join(lines)


def markdown() -> str:
    """Return the zoo as a table for the README."""
    lines = ["| preset | published file | scores to expect |", "|---|---|---|"]
    for preset, model in MODELS.items():
        scores = "; ".join(
            f"{p.label}: {numbers_text(p.numbers)} ({p.source})" for p in model.scores
        )
        lines.append(f"| `{preset}` | `{model.file}` ({model.project}) | {scores} |")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Options:
    """Show which published weights fit which preset, where they come from, and what they should score.

    Attributes:
        preset: only these presets.
        markdown: as a table for a README.
        debug: show the traceback of an error.
    """

    preset: Annotated[tuple[str, ...], cli.Positional] = ()
    markdown: bool = False
    debug: bool = False


def run(options: Options) -> None:
    """Carry out ``jaxtrack zoo``.

    Args:
        options: the call.

    Raises:
        UsageError: a preset behind which nothing is known.
    """
    if options.markdown and options.preset:
        raise UsageError("--markdown shows all presets; name none")
    print(markdown() if options.markdown else table(options.preset))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return cli.command(Options, run, "jaxtrack zoo", arguments)
