"""letta server on Daytona: a sandbox that never stops by itself.

    pip install daytona
    DAYTONA_API_KEY=... LETTA_API_KEY=... python daytona/launch.py

Run it again after an outage or to look after it: it finds the sandbox by its
name, starts it if it stopped, and starts the server in it if none runs.
Daytona replaces the start command of an image, so the server is started in
the background (`letta server --detach`) and outlives this script.
"""

import os
import sys

from daytona import CreateSandboxFromImageParams, Daytona, DaytonaNotFoundError, Image, Resources

NAME = os.environ.get("LETTA_SANDBOX", "letta-server")
IMAGE = os.environ.get("LETTA_IMAGE", "ghcr.io/letta-ai/letta-server:latest")
HOME = "/home/letta"
# The server is not waited for longer than this; it goes on trying.
READY_WITHIN = 60


def sandbox_of(client: Daytona):
    """The running sandbox, made at the first time."""
    try:
        sandbox = client.get(NAME)
    except DaytonaNotFoundError:
        return client.create(
            CreateSandboxFromImageParams(
                name=NAME,
                image=Image.base(IMAGE).entrypoint(["sleep", "infinity"]),
                resources=Resources(cpu=1, memory=1, disk=3),
                env_vars={"HOME": HOME, "LETTA_API_KEY": os.environ["LETTA_API_KEY"]},
                # Daytona counts what comes in; nothing ever does.
                auto_stop_interval=0,
                auto_delete_interval=-1,
            ),
            timeout=0,
            on_snapshot_create_logs=print,
        )
    if sandbox.state != "started":
        sandbox.start(timeout=120)
    return sandbox


def start_server(sandbox) -> None:
    """Starts the server unless it runs, and waits until it is connected."""
    running = sandbox.process.exec("letta healthcheck", cwd=HOME, timeout=10)
    if running.exit_code != 0:
        begun = sandbox.process.exec("letta server --detach --env-name daytona", cwd=HOME, timeout=30)
        print(begun.result)
        if begun.exit_code != 0:
            sys.exit(f"letta server could not be started in {NAME}.")
    wait = f"for n in $(seq {READY_WITHIN}); do letta healthcheck --ready && exit; sleep 1; done; letta doctor; exit 1"
    ready = sandbox.process.exec(wait, cwd=HOME, timeout=READY_WITHIN + 60)
    print(ready.result)
    if ready.exit_code != 0:
        sys.exit(f"The server in {NAME} is not connected; `letta doctor` says why, above.")


def main() -> None:
    """Everything, once."""
    if not os.environ.get("LETTA_API_KEY"):
        sys.exit("Set LETTA_API_KEY to a key of https://app.letta.com.")
    start_server(sandbox_of(Daytona()))
    print(f"{NAME} is connected: pick `daytona` in chat.letta.com.")


if __name__ == "__main__":
    main()
