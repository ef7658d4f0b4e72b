"""How a process of graft ends early: one line, a true exit code, and any traceback in a file.

Every entry point runs its body by ``run_process``. This module imports nothing heavy, so that it is
there when an import of something else fails.
"""

import codecs
import contextlib
import errno
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from graft.core.text import printable
from graft.errors import GraftError, StorageError, TransportError, missing_extra

EXIT_ERROR: Final = 1
EXIT_INTERNAL: Final = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
_THREADS_END_S = 5.0
# The libraries of the extras; with the base dependencies alone a command may lack one.
_EXTRAS = {
    "pyarrow": "data",
    "jinja2": "report", "matplotlib": "report",
    "ray": "simulation", "simpy": "simulation", "sklearn": "simulation",
    "prometheus_client": "server", "httpx": "server", "starlette": "server", "uvicorn": "server",
}  # fmt: skip
# What a place refuses, and what helps.
_PLACES: Final = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or have the quota raised",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "name a place that this user may use, or change its permissions",
    errno.EPERM: "name a place that this user may use, or change its permissions",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "name a path without a loop of links",
    errno.ENOTDIR: "name a path whose folders are folders",
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "name another place",
    errno.ENOTEMPTY: "name another place",
    errno.ENOENT: "check the path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount the network file system again",
    errno.ENOTCONN: "mount the file system again",
    errno.ETXTBSY: "end the program that uses it",
    errno.EBUSY: "end the program that uses it",
}
# What a library's own error says of the system's, e.g. "(os error 28)".
_NUMBER = re.compile(r"(?:\[Errno |\(os error )(\d+)")
_WORDS = {"No space left on device": errno.ENOSPC, "database or disk is full": errno.ENOSPC,
          "readonly database": errno.EROFS}  # fmt: skip
# Typographic signs of tables and pages, by code point, in ASCII.
_SIGNS = {
    0x2212: "-", 0x2013: "-", 0x2014: "-", 0x2026: "...", 0xD7: "x", 0xB7: ".", 0xB1: "+-",
    0x2192: "->", 0x2264: "<=", 0x2265: ">=", 0x2248: "~", 0x2022: "*", 0x201C: '"', 0x201D: '"',
    0x2018: "'", 0x2019: "'", 0xA0: " ", 0x202F: " ", 0x3B3: "gamma", 0x3B5: "eps", 0x3B4: "delta",
}  # fmt: skip


def run_process(
    body: Callable[[], int | None], *, as_json: Callable[[], bool] = lambda: False
) -> int:
    """Run a process's whole work; its exit code.

    Whatever ends it early is one line on the error stream, or with ``as_json`` an object on the
    standard output, beside that line, unless a result is there already.
    """
    make_printable()
    catch_strays()
    try:
        code = body() or 0
        sys.stdout.flush()
        return int(code)
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    except SystemExit as error:
        if isinstance(error.code, str):
            say(error.code)
            return EXIT_ERROR
        return error.code or 0
    except BrokenPipeError:
        # The reader of a pipe has gone; nothing must be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except BaseException as error:
        return tell(error, as_json=as_json())


def tell(error: BaseException, *, as_json: bool = False) -> int:
    """Print what ended a process; the exit code for it."""
    known = known_error(error)
    if known is None:
        name, message, page = (
            "InternalError",
            internal_line(error),
            "docs/errors.md#internal-errors",
        )
        say(f"internal error: {message} (see {page})")
    else:
        name, message, page = type(known).__name__, str(known), known.page()
        say(f"{name}: {message} (see {page})", emphasis=len(name))
    code = EXIT_INTERNAL if known is None else EXIT_ERROR
    if as_json:
        tell_json(name, message, code, page)
    return code


def tell_json(name: str, message: str, code: int, page: str) -> None:
    """Print an error as an object on the standard output; none after a result."""
    if not printed_json():
        facts = {"type": name, "message": message, "exit_code": code, "page": page}
        sys.stdout.write(json.dumps({"error": facts}, indent=2) + "\n")
        sys.stdout.flush()


_results: list[bool] = []


def printed_json(now: bool = False) -> bool:
    """Whether a result is on the standard output; ``now``: one is being written."""
    if now:
        _results.append(True)
    return bool(_results)


def known_error(error: BaseException) -> GraftError | None:
    """The error as one of graft's own, where it is one or the system's; None: a defect."""
    if isinstance(error, GraftError):
        return error
    if isinstance(error, ModuleNotFoundError):
        library = (error.name or "").partition(".")[0]
        return missing_extra(library, _EXTRAS[library]) if library in _EXTRAS else None
    if isinstance(error, MemoryError):
        return StorageError(
            f"memory: got {error or 'none left'}, wanted more; run fewer workers or domains at once"
        )
    return system_error(error)


def system_error(error: BaseException) -> GraftError | None:
    """What the system refused, as StorageError or TransportError; None where it was not that."""
    each: BaseException | None = error
    while each is not None:
        number = _error_number(each)
        if number in _PLACES:
            name = getattr(each, "filename2", None) or getattr(each, "filename", None)
            where = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else "a file"
            why = getattr(each, "strerror", None) or os.strerror(number)
            if why.startswith("No usable temporary directory"):  # Python's own, of tempfile
                return StorageError(f"temporary files: got {why}; set TMPDIR to a folder for them")
            return StorageError(f"{where}: got {os.strerror(number)}; {_PLACES[number]}")
        if number is not None and isinstance(each, OSError):
            return TransportError(f"network: got {each.strerror or os.strerror(number)}")
        each = each.__cause__ or each.__context__
    return None


def _error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    if found := _NUMBER.search(text):
        return int(found[1])
    return next((number for words, number in _WORDS.items() if words in text), None)


def internal_line(error: BaseException) -> str:
    """One line that names the error and the file that its traceback is in."""
    what = " ".join(str(error).split()) or "no message"
    path = write_traceback(error)
    where = f"the traceback is in {path}" if path else "no place is left for its traceback"
    return f"{type(error).__name__}: {what}; {where}"


def write_traceback(error: BaseException) -> str | None:
    """Write a traceback, without local variables, to a new file; its path, None: nowhere."""
    text = "".join(traceback.format_exception(error))
    for folder in (None, str(Path.cwd()) if _has_cwd() else None, os.path.expanduser("~")):
        try:
            handle, path = tempfile.mkstemp(prefix="graft-", suffix=".log", dir=folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return path
    return None


def check_working_folder() -> None:
    """Raise StorageError where the working folder was removed: no library works in it."""
    if not _has_cwd():
        raise StorageError("working folder: got one that was removed; change to another (cd)")


def _has_cwd() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:  # it was removed
        return False


def say(line: str, *, emphasis: int = 0) -> None:
    """Print a line of printable text to the error stream, if anybody is there to read it.

    ``emphasis``: how many characters at its start a terminal shows in red.
    """
    line = printable(line)
    try:
        if emphasis and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
            line = f"\x1b[1;31m{line[:emphasis]}\x1b[0m{line[emphasis:]}"
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):  # closed, full, or a process without one
        pass


def make_printable() -> None:
    """Let the standard streams take every text, whatever encoding the terminal has.

    Signs that it lacks are written in ASCII, other characters as escapes.
    """
    codecs.register_error("graft", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and stream.errors != "graft":
            reconfigure(errors="graft")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(
        _SIGNS.get(ord(each)) or each.encode("ascii", "backslashreplace").decode()
        for each in error.object[error.start : error.end]
    ), error.end


def catch_strays() -> None:
    """Also what a thread or a destructor raises, and a logged error, is a line and a file."""

    def thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
            say(f"a thread broke: {internal_line(arguments.exc_value)}")

    def unraisable(arguments: Any) -> None:
        if isinstance(arguments.exc_value, Exception):
            say(f"{arguments.err_msg or 'at the end'}: {internal_line(arguments.exc_value)}")

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        tell(error)

    threading.excepthook, sys.unraisablehook, sys.excepthook = thread, unraisable, uncaught
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        handler.addFilter(_one_line)


def prepare_flower() -> None:
    """Before one of Flower's own processes begins: its log is lines, its children no zombies.

    Flower starts processes that it never waits for; children inherit that nobody need do so.
    """
    _shorten_logs()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def prepare_app() -> None:
    """Before an app's own work in a process of Flower, whose children's exit codes count again."""
    _shorten_logs()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _shorten_logs() -> None:
    """From now on what is logged is one line; a traceback goes to a file."""
    for name in ("flwr", "graft"):
        logger = logging.getLogger(name)
        if _one_line not in logger.filters:
            logger.addFilter(_one_line)


def _one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    line = " ".join(record.getMessage().split())
    if error is not None:
        known = known_error(error)
        line += f": {type(known).__name__}: {known}" if known else f": {internal_line(error)}"
    record.msg, record.args, record.exc_info, record.exc_text = printable(line), (), None, None
    return True


def end_process(code: int) -> None:
    """End this process with ``code``; threads of a broken engine have seconds to end before it."""
    main = threading.main_thread()
    for each in threading.enumerate():
        if each is not main and not each.daemon:
            each.join(_THREADS_END_S)
            if each.is_alive():
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError, ValueError):
                        stream.flush()
                os._exit(code)
    sys.exit(code)
