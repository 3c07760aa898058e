"""The committed protobuf modules are what protoc makes of the .proto files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]


class Generated(SynchronousTestCase):
    def test_up_to_date(self) -> None:
        """Compiling the .proto files gives the committed modules, byte for byte."""
        out = Path(self.mktemp())
        out.mkdir()
        protos = sorted((ROOT / "protos").rglob("*.proto"))
        plugin = Path(sys.executable).with_name("protoc-gen-mypy")
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc"),
                f"--proto_path={ROOT / 'protos'}",
                f"--python_out={out}",
                f"--mypy_out={out}",
                f"--plugin=protoc-gen-mypy={plugin}",
                *map(str, protos),
            ],
            check=True,
            capture_output=True,
        )
        made = sorted(path.relative_to(out) for path in out.rglob("*_pb2.py*"))
        wire = ROOT / "filegrid" / "protocol" / "wire"
        self.assertEqual(made, sorted(p.relative_to(ROOT) for p in wire.glob("*_pb2.py*")))
        for name in made:
            self.assertEqual((out / name).read_text(), (ROOT / name).read_text(), str(name))
