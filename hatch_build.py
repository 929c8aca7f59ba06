"""Compiles the native CPU kernels while the package is installed. Without a compiler the package is pure Python."""

import importlib.util
import os
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("omnicalc/kernels/native")


class NativeKernels(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if os.environ.get("OMNICALC_NO_NATIVE"):
            self.app.display_warning("OMNICALC_NO_NATIVE is set: the native CPU kernel is left out")
            return
        spec = importlib.util.spec_from_file_location("build", Path(self.root) / KERNELS / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        libraries = build.build(self.app.display_warning)
        if libraries:
            build_data["tag"] = f"py3-none-{build.platform_tag()}"  # the libraries know nothing of Python
            build_data["pure_python"] = False
            root = Path(self.root).resolve()
            build_data["artifacts"] += [path.resolve().relative_to(root).as_posix() for path in libraries]
