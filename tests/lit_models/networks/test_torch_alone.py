"""A network needs torch and nothing else that has to be installed."""

import subprocess
import sys

PROGRAM = """
import importlib, inspect, pkgutil, sys
import torch
import torch._dynamo  # now, with all that torch itself needs, as the meta device asks for it


class Blocked:
    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package not in {"lit_models", *sys.stdlib_module_names, *already}:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)


torch.set_num_threads(1)
already = {name.partition(".")[0] for name in sys.modules}
assert not already & {"lightning", "timm", "torchvision", "torchmetrics", "jsonargparse"}
sys.meta_path.insert(0, Blocked())
import lit_models.networks

built = 0
for file in pkgutil.iter_modules(lit_models.networks.__path__):
    if file.name.startswith("timm_"):
        continue
    module = importlib.import_module(f"lit_models.networks.{file.name}")
    for name, kind in vars(module).items():
        ours = callable(kind) and getattr(kind, "__module__", "") == module.__name__
        parameters = inspect.signature(kind).parameters if ours else {}
        if parameters and next(iter(parameters)) in ("num_classes", "depth") and name[0] != "_":
            with torch.device("meta"):
                net = kind(num_classes=7).eval()
                assert net(torch.empty(1, 3, 64, 64)).shape == (1, 7)
            built += 1
print(built)
"""


def test_networks_are_built_and_run_where_only_torch_is_installed(repository):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == 9
