"""Settings of every test: four fake CPU devices, strict numerics, packs beside the checkout."""

import os

# Before JAX starts its backends: four devices, so that data-parallel code is really parallel; and quick
# compilation rather than fast programs, for most of them run once. (Without fusion emitters they compile in
# half the time again, but a scan is then not the loop to the last bit.)
for _flag in ("--xla_force_host_platform_device_count=4", "--xla_backend_optimization_level=0"):
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}".strip()

import pathlib

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``shared`` need the packs beside the checkout; without them they are skipped."""
    if SHARED.is_dir():
        return
    reason = pytest.mark.skip(reason=f"no packs at {SHARED}")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(reason)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with parity packs, benchmarks and sequences (``../shared``)."""
    return SHARED


@pytest.fixture(scope="session")
def golden_dir() -> pathlib.Path:
    """The committed selection of figures."""
    return ROOT / "tests" / "golden"
