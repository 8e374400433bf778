"""Make the checkpoint files of this folder. Needs PyTorch, which the project itself does not.

python tests/golden/weights/make.py
"""

import collections
import pathlib
import sys
import types

import torch

HERE = pathlib.Path(__file__).parent


def odd() -> dict[str, torch.Tensor]:
    """Every storage type, and windows onto one shared storage."""
    base = torch.arange(24.0).reshape(4, 6)
    return collections.OrderedDict(
        whole=base,
        transposed=base.t(),
        window=base[1:3, 2:5],
        row=base[2],
        expanded=torch.full((1,), 7.0).expand(5),
        channels_last=torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
        parameter=torch.nn.Parameter(base[:1].clone()),
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(3.5),
        double=base.double(),
        half=base.half(),
        bfloat16=base.bfloat16(),
        int64=torch.arange(5),
        int32=torch.arange(5, dtype=torch.int32),
        int16=torch.arange(5, dtype=torch.int16),
        int8=torch.arange(-2, 3, dtype=torch.int8),
        uint8=torch.arange(5, dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        complex64=torch.complex(base[0], -base[0]),
    )


def trained(modules: str) -> dict[str, object]:
    """What training codes save beside the network: statistics and settings of their own classes."""
    parts = modules.split(".")
    for i in range(len(parts)):
        name = ".".join(parts[: i + 1])
        sys.modules[name] = types.ModuleType(name)
    meter = type("AverageMeter", (), {"__module__": modules})
    vars(sys.modules[modules])["AverageMeter"] = meter
    stat = meter()
    stat.history = [1.0, 2.0]
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    for i, value in enumerate(net.state_dict().values()):
        value.copy_(torch.arange(value.numel()).reshape(value.shape) + 100 * i)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
    return {
        "epoch": 3,
        "net_type": "OSTRACK",
        "net": net.state_dict(),
        "optimizer": optimiser.state_dict(),
        "stats": collections.OrderedDict(train=stat),
        "settings": stat,
        "device": torch.device("cpu"),
    }


def main() -> None:
    """Write all files."""
    checkpoint = trained("lib.train.admin.stats")
    network = checkpoint["net"]
    assert isinstance(network, dict)
    for name, new in (("zip", True), ("legacy", False)):
        for stem, value in (
            ("odd", odd()),
            ("ostrack", checkpoint),
            ("module", torch.nn.Linear(2, 2)),
        ):
            path = HERE / f"{stem}_{name}.pth"
            torch.save(value, path, _use_new_zipfile_serialization=new)
    parallel = {f"module.{k}": v for k, v in network.items()}
    path = HERE / "pysot.pth.tar"
    saved = {"epoch": 20, "state_dict": parallel}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    torch.save({"wide": torch.arange(5).to(torch.uint16)}, HERE / "uint16_zip.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), HERE / "script.pt")


if __name__ == "__main__":
    main()
