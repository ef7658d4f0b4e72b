"""A machine whose power can be cut: what may be left of a folder then."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

_CHANGES = ("fsync", "replace", "unlink", "rmdir", "mkdir")


class PowerCut(BaseException):
    """The machine is off. It is no Exception, because no program handles it."""


@dataclass(slots=True)
class _Disk:
    """What is on the disk for certain: content by inode, and the names in each folder, with None
    for the content of a folder."""

    content: dict[int, bytes] = field(default_factory=dict)
    names: dict[Path, dict[str, tuple[int, bytes | None]]] = field(default_factory=dict)

    def sync(self, path: Path) -> None:
        status = path.stat()
        if path.is_dir():
            self.names[path] = {
                each.name: (
                    (inode := each.stat().st_ino),
                    None if each.is_dir() else self.content.get(inode, b""),
                )
                for each in path.iterdir()
            }
            return
        self.content[status.st_ino] = content = path.read_bytes()
        for names in self.names.values():
            for name, (inode, _) in names.items():
                if inode == status.st_ino:
                    names[name] = inode, content

    def forget(self, path: Path) -> None:
        """A removed file's inode may be another file's from now on."""
        if path.is_file():
            self.content.pop(path.stat().st_ino, None)


class PowerSupply:
    """``with PowerSupply(root, image, cut_at, chance)``: the power is cut at the given change.

    ``changes`` counts what the block did to files under ``root``; None cuts nothing. The folder
    ``image`` then has what may be left of ``root``. Without ``syncs`` the disk ignores what is
    synced.
    """

    def __init__(
        self, root: Path, image: Path, cut_at: int | None, chance: random.Random, syncs: bool
    ) -> None:
        self.changes = 0
        self._syncs = syncs
        self._root = root.resolve()
        self._image = image
        self._cut_at = cut_at
        self._chance = chance
        self._written = chance.choice([0.1, 0.5, 0.95])  # chance that a change came to the disk
        self._disk = _Disk()
        self._is_off = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        for folder, _, names in os.walk(self._root):
            for path in (*(Path(folder) / name for name in names), Path(folder)):
                self._disk.sync(path)
        for folder, _, _ in os.walk(self._root):
            self._disk.sync(Path(folder))
        originals = {name: getattr(os, name) for name in _CHANGES}
        with mock.patch.multiple(os, **{n: self._watched(n, o) for n, o in originals.items()}):
            yield

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **options: Any) -> Any:
            target = args[-1] if name == "replace" else args[0]
            path = self._path(target, options.get("dir_fd"))
            if path is None:
                return original(*args, **options)
            if self._is_off:
                raise PowerCut  # what handles the cut must not change the disk
            self.changes += 1
            if self.changes == self._cut_at:
                self._is_off = True
                self._build(self._root, self._image)
                raise PowerCut
            if name in ("replace", "unlink"):
                self._disk.forget(path)
            done = original(*args, **options)
            if name == "fsync" and self._syncs:
                self._disk.sync(path)
            return done

        return change

    def _path(self, target: Any, dir_fd: int | None) -> Path | None:
        """The changed path, if it is under the root."""
        if isinstance(target, int):
            path = Path(os.readlink(f"/proc/self/fd/{target}"))
        elif dir_fd is not None:
            path = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / os.fsdecode(target)
        else:
            path = Path(os.path.abspath(os.fsdecode(target)))
        return path if path.is_relative_to(self._root) else None

    def _build(self, folder: Path, image: Path) -> None:
        """What may be left of a folder: each change since its last sync is there or not."""
        image.mkdir(parents=True)
        synced = self._disk.names.get(folder, {})
        now = {each.name: each for each in folder.iterdir()} if folder.is_dir() else {}
        for name in sorted(synced.keys() | now.keys()):
            path = folder / name
            is_same = name in now and name in synced and path.stat().st_ino == synced[name][0]
            if not is_same and self._chance.random() > self._written:
                if name in synced:  # neither its removal nor what replaced it came to the disk
                    self._restore(path, synced[name][1], image / name)
            elif name in now:
                if path.is_dir():
                    self._build(path, image / name)
                else:
                    self._write(image / name, self._content(path), path.stat().st_mode)

    def _restore(self, path: Path, content: bytes | None, image: Path) -> None:
        if content is not None:
            self._write(image, content, 0o600)
            return
        image.mkdir(parents=True)
        for name, (_, inner) in self._disk.names.get(path, {}).items():
            self._restore(path / name, inner, image / name)

    def _content(self, path: Path) -> bytes:
        """A file's content: as synced, as written since, a part of it, or zeros."""
        now, synced = path.read_bytes(), self._disk.content.get(path.stat().st_ino)
        if now == synced or self._chance.random() < self._written:
            return now
        part = self._chance.randrange(len(now) + 1)
        torn = now[:part]
        return self._chance.choice([synced or b"", torn, torn + bytes(len(now) - part)])

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        path.write_bytes(content)
        path.chmod(mode & 0o777)
