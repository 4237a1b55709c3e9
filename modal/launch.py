"""letta server on Modal: one named sandbox, kept alive by a schedule.

    modal secret create letta LETTA_API_KEY=...
    modal deploy modal/launch.py
    modal run modal/launch.py        # starts it now; the schedule would within ten minutes

A sandbox lives 24 hours at most. Every ten minutes `keep` looks after it: one
that has ended is started again, and one that comes near the limit is asked to
stop (the running tool may finish) and replaced. The volume keeps ~/.letta.
The name of the sandbox makes sure that there is only one.
"""

import os
import time

import modal

NAME = "letta-server"
IMAGE = os.environ.get("LETTA_IMAGE", "ghcr.io/letta-ai/letta-server:latest")
HOME = "/home/letta"
HOUR = 3600
LIFETIME = 24 * HOUR
REPLACE_AFTER = 23 * HOUR
# LETTA_DRAIN_SECONDS and the last steps.
STOP_WITHIN = 90

app = modal.App(NAME)
# Modal runs its own first process and needs a Python of its own.
image = modal.Image.from_registry(IMAGE, add_python="3.12").entrypoint([])
volume = modal.Volume.from_name("letta-home", create_if_missing=True, version=2)
secret = modal.Secret.from_name("letta", required_keys=["LETTA_API_KEY"])


def start() -> modal.Sandbox:
    """Starts the sandbox and waits until the server is connected."""
    sandbox = modal.Sandbox.create(
        "letta",
        "server",
        app=modal.App.lookup(NAME, create_if_missing=True),
        name=NAME,
        tags={"started": str(int(time.time()))},
        image=image,
        secrets=[secret],
        env={
            "HOME": HOME,
            "LETTA_ENV_NAME": "modal",
            "LETTA_HEALTH_ADDR": "127.0.0.1:8080",
            "LETTA_DRAIN_SECONDS": "60",
        },
        volumes={HOME: volume},
        workdir=HOME,
        # No idle_timeout: nothing ever comes in, so Modal would call it idle.
        timeout=LIFETIME,
        cpu=0.125,
        # What is paid for, and what agents' commands may use at most.
        memory=(128, 2048),
        readiness_probe=modal.Probe.with_exec("letta", "healthcheck", "--ready", interval_ms=1000),
        # An agent that needs only Letta and GitHub can be held to that:
        # outbound_domain_allowlist=["*.letta.com", "github.com", "*.githubusercontent.com"],
    )
    sandbox.wait_until_ready(timeout=120)
    return sandbox


def stop(sandbox: modal.Sandbox) -> None:
    """Lets the running tool finish, then takes the sandbox away."""
    sandbox.exec("letta", "stop", timeout=STOP_WITHIN).wait()
    sandbox.terminate(wait=True)


def look_after() -> str:
    """Starts the sandbox if there is none, replaces it before its time is over."""
    try:
        sandbox = modal.Sandbox.from_name(NAME, NAME)
    except modal.exception.NotFoundError:
        start()
        return "started"
    if sandbox.poll() is not None:
        start()
        return "started again"
    started = int(sandbox.get_tags().get("started", "0"))
    if time.time() - started < REPLACE_AFTER:
        return "running"
    stop(sandbox)
    start()
    return "replaced"


@app.function(
    schedule=modal.Period(minutes=10),
    image=modal.Image.debian_slim(python_version="3.12"),
    env={"LETTA_IMAGE": IMAGE},
    max_containers=1,
    timeout=600,
)
def keep() -> None:
    """What the schedule calls."""
    print(look_after())


@app.local_entrypoint()
def main() -> None:
    """What `modal run` calls."""
    print(look_after())
