#!/usr/bin/env python3
"""Runs the launchers with the real client libraries against stand-ins of their platforms.

The stand-ins are servers on this machine, at the other end of the network: what
arrives there is what Modal and Daytona would get. They know only the calls
that the launchers need; any other one fails the check.
usage: tests/deploy/launchers.py modal|daytona   (in the repository's root)
"""

import asyncio
import base64
import http.server
import importlib.util
import inspect
import json
import os
import socket
import sys
import threading
import time
from unittest import mock


def launcher(path):
    """The launcher as a module."""
    spec = importlib.util.spec_from_file_location("launch", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["launch"] = module
    spec.loader.exec_module(module)
    return module


def expect(what, found, wanted):
    """Ends the check when something else arrived."""
    if found != wanted:
        sys.exit(f"{what}: {found!r} arrived, {wanted!r} is right")


# --- Modal -----------------------------------------------------------------


def modal_answers(sandboxes):
    """How a Modal server answers the calls that the launcher needs."""
    from grpclib import GRPCError, Status
    from modal_proto import api_pb2

    def box(request):
        return next(box for box in sandboxes if box["id"] == request.sandbox_id)

    def create(request):
        number = f"sb-{len(sandboxes) + 1}"
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        sandboxes.append({"id": number, "request": request, "code": None, "tags": tags})
        return api_pb2.SandboxCreateV2Response(sandbox_id=number)

    def by_name(request):
        # An ended one is not found, unless the test wants the moment in between.
        living = [box for box in sandboxes if box["code"] is None or box.get("visible")]
        if not living or request.sandbox_name != "letta-server":
            raise GRPCError(Status.NOT_FOUND, "no such sandbox")
        return api_pb2.SandboxGetFromNameResponse(sandbox_id=living[-1]["id"])

    def nothing(_):
        # The client asks for sandboxes of the older kind as well.
        raise GRPCError(Status.NOT_FOUND, "no such sandbox")

    def terminate(request):
        box(request)["code"] = 137
        return api_pb2.SandboxTerminateResponse()

    def wait(request):
        code = box(request)["code"]
        result = api_pb2.GenericResult()
        if code is not None:
            result.status = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED
            result.exitcode = code
        return api_pb2.SandboxWaitResponse(result=result)

    def tags(request):
        tags = [
            api_pb2.SandboxTag(tag_name=name, tag_value=value)
            for name, value in box(request)["tags"].items()
        ]
        return api_pb2.SandboxTagsGetResponse(tags=tags)

    success = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
    token = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({}, {"exp": int(time.time()) + 3600}, {})
    )
    return {
        "ClientHello": lambda _: api_pb2.ClientHelloResponse(),
        "AuthTokenGet": lambda _: api_pb2.AuthTokenGetResponse(token=token),
        "AppGetOrCreate": lambda _: api_pb2.AppGetOrCreateResponse(app_id="ap-1"),
        "EnvironmentGetOrCreate": lambda _: api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-1",
            metadata=api_pb2.EnvironmentMetadata(
                settings=api_pb2.EnvironmentSettings(image_builder_version="2025.06")
            ),
        ),
        "VolumeGetOrCreate": lambda request: api_pb2.VolumeGetOrCreateResponse(
            volume_id="vo-1", version=request.version,
            metadata=api_pb2.VolumeMetadata(version=request.version),
        ),
        "SecretGetOrCreate": lambda _: api_pb2.SecretGetOrCreateResponse(secret_id="st-1"),
        "MountGetOrCreate": lambda _: api_pb2.MountGetOrCreateResponse(mount_id="mo-1"),
        "ImageGetOrCreate": lambda _: api_pb2.ImageGetOrCreateResponse(image_id="im-1", result=success),
        "SandboxCreateV2": create,
        "SandboxGetFromName": nothing,
        "SandboxGetFromNameV2": by_name,
        "SandboxWaitV2": wait,
        "SandboxTerminateV2": terminate,
        "SandboxTagsGetV2": tags,
    }


def modal_server(answers, record):
    """Starts a Modal server in a thread; its port."""
    from grpclib import GRPCError, Status
    from grpclib.server import Server
    from modal_proto import api_grpc

    def handler(name):
        async def handle(_, stream):
            request = await stream.recv_message()
            record.append((name, request))
            if name not in answers:
                raise GRPCError(Status.UNIMPLEMENTED, name)
            await stream.send_message(answers[name](request))

        return handle

    names = [name for name in dir(api_grpc.ModalClientBase) if name[0].isupper()]
    platform = type("Platform", (api_grpc.ModalClientBase,), {name: handler(name) for name in names})()
    started, port = threading.Event(), []

    async def serve():
        server = Server([platform])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port.append(free.getsockname()[1])
        await server.start("127.0.0.1", port[0])
        started.set()
        await server.wait_closed()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    started.wait()
    return port[0]


def check_modal():
    """What `look_after` does about no sandbox, a living, an ended and an old one."""
    record, sandboxes = [], []
    port = modal_server(modal_answers(sandboxes), record)
    os.environ.update(
        MODAL_SERVER_URL=f"http://127.0.0.1:{port}",
        MODAL_TOKEN_ID="ak-test",
        MODAL_TOKEN_SECRET="as-test",
    )
    launch = launcher("modal/launch.py")
    sandbox = launch.modal.Sandbox
    # Commands and probes go to the sandbox itself, which does not exist: their
    # calls are held against the real signatures.
    waited, run = [], []

    def stand_in(name, calls):
        signature = inspect.signature(getattr(sandbox, name))

        def called(self, *arguments, **named):
            signature.bind(self, *arguments, **named)
            calls.append(arguments)
            return mock.Mock()

        return mock.patch.object(sandbox, name, called)

    with stand_in("wait_until_ready", waited), stand_in("exec", run):
        expect("modal, nothing there", launch.look_after(), "started")
        expect("modal, it is waited for", len(waited), 1)
        expect("modal, it runs", launch.look_after(), "running")
        sandboxes[0].update(code=1, visible=True)
        expect("modal, it has ended", launch.look_after(), "started again")
        sandboxes[0].update(visible=False)
        sandboxes[1]["tags"]["started"] = str(int(time.time()) - 23 * 3600 - 1)
        expect("modal, its time is over", launch.look_after(), "replaced")
        expect("modal, it is stopped first", run, [("letta", "stop")])
        expect("modal, then terminated", sandboxes[1]["code"], 137)
        expect("modal, sandboxes", len(sandboxes), 3)
    definition = sandboxes[0]["request"].definition
    expect("modal, command", list(definition.entrypoint_args), ["letta", "server"])
    expect("modal, name", definition.name, "letta-server")
    expect("modal, hours", definition.timeout_secs, 24 * 3600)
    expect("modal, idle", definition.HasField("idle_timeout_secs"), False)
    expect("modal, volume", [mount.mount_path for mount in definition.volume_mounts], ["/home/letta"])
    probe = list(definition.readiness_probe.exec_command.argv)
    expect("modal, probe", probe, ["letta", "healthcheck", "--ready"])
    secrets = [request for name, request in record if name == "SecretGetOrCreate"]
    expect("modal, secret", list(secrets[0].required_keys), ["LETTA_API_KEY"])
    built = [request for name, request in record if name == "ImageGetOrCreate"]
    lines = [line for request in built for line in request.image.dockerfile_commands]
    if not any("ghcr.io/letta-ai/letta-server" in line for line in lines):
        sys.exit(f"modal, image: {lines}")
    print("modal: every call was one that a Modal server knows")


# --- Daytona ---------------------------------------------------------------


class Daytona(http.server.BaseHTTPRequestHandler):
    """A Daytona server with one sandbox, whose commands are written down."""

    record, commands, sandbox = [], [], None
    codes: dict = {}

    def log_message(self, *_):
        """Says nothing."""

    def answer(self, status, body):
        """One JSON answer."""
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        """Looks up."""
        self.serve()

    def do_POST(self):
        """Makes or runs."""
        self.serve()

    def serve(self):
        """All that the launcher needs."""
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or "null")
        path = self.path.split("?")[0]
        self.record.append((self.command, path, body))
        kind = type(self)
        if path.endswith("/process/execute"):
            kind.commands.append(body["command"])
            code = next((code for part, code in kind.codes.items() if part in body["command"]), 0)
            self.answer(200, {"exitCode": code, "result": "said"})
        elif (self.command, path) == ("POST", "/sandbox"):
            kind.sandbox = sandbox_of(body["name"], "started")
            self.answer(200, kind.sandbox)
        elif path.endswith("/start") and kind.sandbox:
            kind.sandbox["state"] = "started"
            self.answer(200, kind.sandbox)
        elif path.startswith("/sandbox/") and path.endswith("/toolbox-proxy-url"):
            self.answer(200, {"url": kind.sandbox["toolboxProxyUrl"]})
        elif path.startswith("/sandbox/") and kind.sandbox:
            self.answer(200, kind.sandbox)
        else:
            self.answer(404, {"message": "not found", "statusCode": 404, "error": path})


def sandbox_of(name, state):
    """A sandbox as Daytona shows it."""
    return {
        "id": "sb-1", "name": name, "state": state, "desiredState": "started",
        "organizationId": "org-1", "user": "root", "env": {}, "labels": {}, "public": False,
        "networkBlockAll": False, "kvm": False, "target": "us", "cpu": 1, "gpu": 0, "memory": 1, "disk": 3,
        "toolboxProxyUrl": os.environ["DAYTONA_API_URL"] + "/toolbox",
        "autoStopInterval": 0,
    }


def check_daytona():
    """A first run, a run beside a living server, and one after the sandbox stopped."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Daytona)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ.update(
        DAYTONA_API_URL=f"http://127.0.0.1:{server.server_port}",
        DAYTONA_API_KEY="dtn-test",
        DAYTONA_TARGET="us",
        LETTA_API_KEY="sk-test",
    )
    launch = launcher("daytona/launch.py")
    Daytona.codes = {"for n in": 0, "letta healthcheck": 1}
    launch.main()
    made = next(body for call, path, body in Daytona.record if (call, path) == ("POST", "/sandbox"))
    expect("daytona, auto stop", made["autoStopInterval"], 0)
    expect("daytona, auto delete", made["autoDeleteInterval"], -1)
    expect("daytona, key", made["env"]["LETTA_API_KEY"], "sk-test")
    image = made["buildInfo"]["dockerfileContent"]
    if 'ghcr.io/letta-ai/letta-server' not in image or '"sleep", "infinity"' not in image:
        sys.exit(f"daytona, image: {image}")
    expect(
        "daytona, commands",
        [command.split(";")[0] for command in Daytona.commands],
        ["letta healthcheck", "letta server --detach --env-name daytona", "for n in $(seq 60)"],
    )
    Daytona.commands.clear()
    Daytona.codes = {}
    Daytona.sandbox["state"] = "stopped"
    launch.main()
    expect("daytona, it is started again", Daytona.sandbox["state"], "started")
    expect("daytona, a living server is left alone", len(Daytona.commands), 2)
    expect("daytona, one sandbox", sum(path == "/sandbox" for _, path, _ in Daytona.record), 1)
    print("daytona: every call was one that a Daytona server knows")


if __name__ == "__main__":
    {"modal": check_modal, "daytona": check_daytona}[sys.argv[1]]()
