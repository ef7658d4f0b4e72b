"""The committed stubs are what the .proto files generate."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_committed_stubs_are_what_the_sources_generate(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "stubs.py"))
    script["generate_stubs"](ROOT / "proto" / "graft", tmp_path)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / script["STUBS"]).glob("*_pb2*")}
    committed = {path.name: path.read_bytes() for path in (ROOT / script["STUBS"]).glob("*_pb2*")}
    assert fresh == committed
