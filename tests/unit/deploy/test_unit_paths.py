"""Paths with blanks, percent signs and quotes are one word of a systemd unit."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from graft.cli.deploy.setup import unit_files
from graft.errors import ConfigError

PATHS = [
    "/srv/my graft", "/srv/a%20b", '/srv/q"x', "/srv/d$HOME", "/srv/it's", "/srv/b\\s",
    "/srv/ümlaut", "/srv/a;b", "/srv/ lead", "/srv/#x", "/srv/%i",
]  # fmt: skip


def words(line: str) -> list[str]:
    """What systemd makes of a command line's or a path's words, before specifiers."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.quotes = True, "", '"'
    return list(lexer)


@pytest.mark.parametrize("path", PATHS)
def test_each_path_is_the_word_that_was_meant(path: str) -> None:
    """systemd reads %% as % everywhere, and $$ as $ in arguments of commands alone."""
    graft = Path(path) / "venv/bin/graft"
    for name, text in unit_files(graft, Path(path)).items():
        (command,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
        program, *arguments = words(command)
        assert program.replace("%%", "%") == str(graft)
        (writes,) = re.findall("^ReadWritePaths=(.*)$", text, re.MULTILINE)
        (folder,) = words(writes)
        instance = "devices/%i" if "device" in name else "server"
        marked = folder.replace("%%", "\0")
        assert marked.replace("\0", "%") == f"{path}/{instance}"
        assert marked.count("%") == instance.count("%")
        meant = [a.replace("$$", "$").replace("%%", "%") for a in arguments]
        assert f"{path}/{instance}" in meant


def test_systemd_accepts_them(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    graft = tmp_path / "my %20 graft" / "graft"
    graft.parent.mkdir()
    graft.write_text("#!/bin/sh\n")
    graft.chmod(0o755)
    units = []
    for name, text in unit_files(graft, Path('/srv/my "graft" 100%')).items():
        units.append(tmp_path / name.replace("@", "@ann"))
        units[-1].write_text(text, "utf-8")
    command = [analyze, "verify", "--man=no", *map(str, units)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "graft-" not in told.stderr


def test_a_path_that_no_unit_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="printable"):
        unit_files(Path("/usr/bin/graft"), Path("/srv/a\nb"))
