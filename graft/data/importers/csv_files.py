"""Which files of a folder are recordings, and what their paths say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from graft.data.public.recordings import natural_key
from graft.errors import ConfigError, DatasetFormatError

_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".xlsx", ".xlsm")
# Recordings only where the folder has no table: a note beside the recordings is a .txt file, too.
_TEXTS = (".txt", ".dat", ".log", ".txt.gz", ".dat.gz")
# What operating systems and office programs leave beside people's files.
_COMPANIONS = re.compile(r"\..*|~\$.*|__macosx|thumbs\.db|desktop\.ini", re.IGNORECASE)
_FIELDS = ("user", "label", "session", "stream")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingFile:
    """A file, its name below the source, and the user, label and session that its path states."""

    path: Path
    name: str
    stated: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFiles:
    """The recordings in natural order, and in words what was passed over."""

    files: tuple[RecordingFile, ...]
    passed_over: tuple[str, ...]


def path_fields(pattern: str | None) -> tuple[str, ...]:
    """The fields of a path pattern; raises ConfigError for one that cannot be."""
    if pattern is None:
        return ()
    fields = re.findall(r"\{(.*?)\}", pattern)
    if not fields or set(fields) - set(_FIELDS) or len(set(fields)) < len(fields):
        raise ConfigError(
            f"path: got {pattern!r}, wanted some of {{user}}, {{label}}, {{session}} and "
            "{stream}, each once"
        )
    return tuple(fields)


def find_files(source: Path, pattern: str | None = None, without: Path | None = None) -> FoundFiles:
    """The recordings at ``source``, a file or a folder.

    ``pattern`` such as "{user}/{label}" is matched with a path below the source, without suffix;
    without one a file's name is its user. ``without`` is a file or folder that is none of them.
    Raises DatasetFormatError for no file, or two of a name.
    """
    try:
        paths = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
    except OSError as error:
        raise DatasetFormatError(f"{source}: got {error}, wanted a readable folder") from error
    if without is not None:
        own = without.resolve()
        paths = [path for path in paths if not path.resolve().is_relative_to(own)]
    root = source.parent if source.is_file() else source
    inner = {path: path.relative_to(root) for path in paths}
    visible = [
        path for path in paths
        if path == source or not any(_COMPANIONS.fullmatch(part) for part in inner[path].parts)
    ]  # fmt: skip
    chosen = [path for path in visible if path == source or _has(path, _TABLES)]
    chosen = chosen or [path for path in visible if _has(path, _TEXTS)]
    chosen.sort(key=lambda path: (natural_key(str(path).casefold()), str(path)))
    files, other = [], sorted(str(inner[path]) for path in set(visible) - set(chosen))
    matcher = _matcher(pattern) if pattern else None
    for path in chosen:
        name = inner[path].with_name(stem(path)).as_posix()
        found = matcher.fullmatch(name) if matcher else None
        if matcher and not found:
            other.append(f"{inner[path]} (not {pattern})")
        else:
            fields = found.groupdict() if found else {"user": stem(path)}
            files.append(
                RecordingFile(path=path, name=str(inner[path]), stated=MappingProxyType(fields))
            )
    hidden = len(paths) - len(visible)
    if hidden:
        other.append(f"{hidden} hidden file{'s' if hidden > 1 else ''} of an operating system")
    if not files:
        more = f"; passed over: {', '.join(other[:5])}" if other else ""
        raise DatasetFormatError(
            f"{source}: got no .csv file, .csv.gz, .tsv, .parquet or .xlsx file, wanted one or a "
            f"folder of them{more}"
        )
    return FoundFiles(files=tuple(files), passed_over=tuple(other))


def check_names(files: tuple[RecordingFile, ...]) -> None:
    """A file's name is a person's: two files of a name would become one."""
    first: dict[str, Path] = {}
    for file in files:
        name = file.stated["user"]
        if first.setdefault(name, file.path) != file.path:
            raise DatasetFormatError(
                f"{file.path}: got a second file of the name {name!r} (also {first[name]}), "
                "wanted one a person, a column that names the person (--user), or --path "
                "'{user}/{session}' where folders do"
            )


def stem(path: Path) -> str:
    """A file's name without the suffixes that graft reads."""
    name = path.name
    for _ in range(2):
        suffix = Path(name).suffix.casefold()
        if suffix != ".gz" and not any(suffix == each for each in (*_TABLES, *_TEXTS)):
            break
        name = Path(name).stem
        if suffix != ".gz":
            break
    return name


def _has(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.casefold().endswith(suffixes)


def _matcher(pattern: str) -> re.Pattern[str]:
    path_fields(pattern)
    text = "".join(
        f"(?P<{part[1:-1]}>[^/]+?)" if part.startswith("{") else
        "[^/]*" if part == "*" else re.escape(part)
        for part in re.findall(r"\{.*?\}|\*|[^{*]+", pattern.removesuffix("/"))
    )  # fmt: skip
    return re.compile(text)
