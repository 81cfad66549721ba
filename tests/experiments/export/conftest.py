"""The extra ``export``."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def packages():
    """Those that write and read ONNX."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
