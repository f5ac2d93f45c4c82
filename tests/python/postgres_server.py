"""A private PostgreSQL server for tests: made in a temporary folder, reached by a socket, gone at the end."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl: Debian's newest, else that of the PATH."""
    newest = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = newest[-1] if newest else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def why_none() -> str | None:
    """Why no server can be had here, or None."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        return "PostgreSQL refuses root, and there is no user postgres to run it as"
    return None


@contextmanager
def server() -> Iterator[str]:
    """Start it. Yields the URL of its database, of a user with the password geheim."""
    programs = _programs()
    assert programs
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    # Not in pytest's folder: root's is closed to others, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="lcm-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text("geheim", encoding="utf-8")
        if as_user:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres")

        def run(*command: str | Path) -> None:
            log = folder / "server.log"
            ended = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False, **as_user)
            assert ended.returncode == 0, log.read_text() if log.exists() else command

        data, log = folder / "data", folder / "server.log"
        run(
            programs / "initdb", "-D", data, "-U", "lcm", "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}", "--no-sync", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=20"
        run(programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://lcm:geheim@/postgres?host={folder}"
        finally:
            run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
