"""A self-hosted Letta server with a database of its own, until it is told to end.

usage: real-letta-server.py DIRECTORY PORT OPENAI_BASE_URL

Needs `letta[server,postgres]` and `pgserver` (scripts/e2e-real-letta installs
them). Postgres listens on PORT + 1 and keeps its files in DIRECTORY.
"""

import asyncio
import atexit
import os
import pathlib
import shutil
import subprocess
import sys

directory, port, model = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
database_port = port + 1

import pgserver  # noqa: E402

programs = pathlib.Path(pgserver.__file__).parent / "pginstall" / "bin"
files = directory / "postgres"


def as_postgres(*command):
    """Postgres does not run as root."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["runuser", "-u", "nobody", "--", *words]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


directory.mkdir(parents=True, exist_ok=True)
if os.geteuid() == 0:
    shutil.chown(directory, "nobody")
as_postgres(programs / "initdb", "-D", files, "-U", "postgres", "--auth=trust")
where = f"-h 127.0.0.1 -p {database_port} -k {directory}"
log = directory / "postgres.log"
as_postgres(programs / "pg_ctl", "-D", files, "-w", "-l", log, "-o", where, "start")
atexit.register(lambda: as_postgres(programs / "pg_ctl", "-D", files, "-m", "immediate", "stop"))
address = ["-h", "127.0.0.1", "-p", str(database_port), "-U", "postgres"]
extension = "create extension if not exists vector"
as_postgres(programs / "psql", *address, "-c", extension)

os.environ["LETTA_PG_URI"] = (
    f"postgresql://postgres:x@127.0.0.1:{database_port}/postgres?sslmode=disable"
)
os.environ["OPENAI_API_KEY"] = "scripted"
os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_API_BASE"] = model

import letta.orm  # noqa: E402,F401
import uvicorn  # noqa: E402
from letta.orm.base import Base  # noqa: E402
from letta.server import db  # noqa: E402
from letta.server.rest_api.app import create_application  # noqa: E402
from sqlalchemy import text  # noqa: E402


async def make_tables():
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        # The package leaves out the migrations that do this.
        await connection.execute(text("create sequence if not exists message_seq_id"))
        await connection.execute(
            text(
                "alter table messages alter column sequence_id"
                " set default nextval('message_seq_id')"
            )
        )
    await db.engine.dispose()


asyncio.run(make_tables())
uvicorn.run(create_application(), host="127.0.0.1", port=port, log_level="warning")
