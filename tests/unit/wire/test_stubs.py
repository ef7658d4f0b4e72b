"""The committed stubs are what the .proto files generate."""

from pathlib import Path

from graft.wire.generate import STUBS, generate_stubs

ROOT = Path(__file__).parents[3]


def test_the_committed_stubs_are_what_the_sources_generate(tmp_path: Path) -> None:
    generate_stubs(ROOT / "proto" / "graft", tmp_path)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / STUBS).glob("*_pb2*")}
    committed = {path.name: path.read_bytes() for path in (ROOT / STUBS).glob("*_pb2*")}
    assert fresh == committed
