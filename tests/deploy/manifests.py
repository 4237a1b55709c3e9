#!/usr/bin/env python3
"""Holds the platform files against what their documentation says.

Each table lists every key that a file may use, with its meaning and what its
value must be. A key that is not in the table fails: no platform reports a
misspelt one. usage: tests/deploy/manifests.py (in the repository's root)
"""

import json
import re
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

# https://fly.io/docs/reference/configuration/
FLY = {
    "app": ("name of the app, a part of its host name", str),
    "primary_region": ("where machines are made", str),
    "kill_signal": ("what ends the machine; SIGINT without it", "SIGTERM"),
    "kill_timeout": ("seconds between it and the end, 300 at most", range(75, 301)),
    "swap_size_mb": ("swap in MiB", range(256, 2049)),
    "build.build-target": ("stage of the Dockerfile", "tools-root"),
    "env.LETTA_ENV_NAME": ("ours", str),
    "env.LETTA_DRAIN_SECONDS": ("ours; must fit into kill_timeout", "60"),
    "mounts.source": ("name of the volume", str),
    "mounts.destination": ("where it goes: HOME of the image", "/home/letta"),
    "mounts.initial_size": ("size at the first deployment", r"\d+gb"),
    "mounts.auto_extend_size_threshold": ("percent in use at which it grows", range(50, 100)),
    "mounts.auto_extend_size_increment": ("by how much", r"\d+gb"),
    "mounts.auto_extend_size_limit": ("up to which size", r"\d+gb"),
    "checks.live.type": ("http or tcp", "http"),
    "checks.live.port": ("where it is asked: PORT of the image", 8080),
    "checks.live.method": ("of the request", "get"),
    "checks.live.path": ("of the request; must be 200 without a login", "/livez"),
    "checks.live.interval": ("between two requests", r"\d+s"),
    "checks.live.timeout": ("of one request", r"\d+s"),
    "checks.live.grace_period": ("before the first one", r"\d+s"),
    "metrics.port": ("where Prometheus asks", 8080),
    "metrics.path": ("what it asks", "/metrics"),
    "restart.policy": ("always: after exit 0 too", "always"),
    "vm.size": ("kind of machine", "shared-cpu-1x"),
    "vm.memory": ("its memory", "256mb"),
}

# https://docs.railway.com/config-as-code/reference
RAILWAY = {
    "$schema": ("for editors", "https://railway.com/railway.schema.json"),
    "build.builder": ("DOCKERFILE, or Railway guesses", "DOCKERFILE"),
    "build.dockerfilePath": ("from the root of the repository", "Dockerfile"),
    "deploy.healthcheckPath": ("must be 200 without a login, once", "/livez"),
    "deploy.healthcheckTimeout": ("seconds until it must be", range(30, 301)),
    "deploy.restartPolicyType": ("ON_FAILURE, ALWAYS or NEVER", "ALWAYS"),
    "deploy.drainingSeconds": ("between SIGTERM and SIGKILL; a number", range(30, 301)),
    "deploy.overlapSeconds": ("two servers of one name must not overlap", 0),
}

failures = []


def fail(text):
    """Notes a failure and goes on."""
    failures.append(text)


def flat(value, path=""):
    """Every leaf with its dotted path; lists of tables count as one table."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from flat(inner, path)
    else:
        yield path, value


def fits(value, wanted):
    """Whether a value is what the table wants: a type, a range, a pattern or itself."""
    if isinstance(wanted, type):
        return isinstance(value, wanted) and value != ""
    if isinstance(wanted, range):
        return type(value) is int and value in wanted
    if isinstance(wanted, str) and "\\" in wanted:
        return isinstance(value, str) and re.fullmatch(wanted, value) is not None
    return type(value) is type(wanted) and value == wanted


def check(name, document, table):
    """Holds a document against its table, both ways."""
    found = dict(flat(document))
    for path, value in found.items():
        if path not in table:
            fail(f"{name}: {path} is not in the table of known keys")
        elif not fits(value, table[path][1]):
            fail(f"{name}: {path} = {value!r}, but it is for: {table[path][0]}")
    for path in table.keys() - found.keys():
        fail(f"{name}: {path} is missing ({table[path][0]})")


def instructions(text):
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.sub(r"\\\n", " ", "\n".join(lines)).splitlines()


def check_dockerfile(text):
    """What hadolint would say, and what the platforms want."""
    stages, variables, user = {}, {}, {}
    stage = None
    for line in instructions(text):
        word, _, rest = line.strip().partition(" ")
        if word == "ARG" and stage is None:
            name, _, default = rest.partition("=")
            variables[name] = default
        elif word == "FROM":
            base, _, stage = re.sub(r"--platform=\S+ ", "", rest).partition(" AS ")
            if base.startswith("${"):
                image = variables.get(base[2:-1], "")
                if not re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.-]+", image) or image.endswith(":latest"):
                    fail(f"Dockerfile: {base} is {image!r}, not an image with its version")
            elif base not in stages and base != "scratch":
                fail(f"Dockerfile: {base} must be an ARG at the top")
            if not stage:
                fail(f"Dockerfile: the stage from {base} has no name")
            stages[stage] = stages.get(base, []) + [line]
            user[stage] = user.get(base, "root")
        else:
            stages[stage].append(line)
        if word == "USER":
            user[stage] = rest
        if word == "VOLUME":
            fail("Dockerfile: Railway refuses VOLUME")
        if word == "ADD":
            fail("Dockerfile: COPY, not ADD")
        if word in ("ENV", "ARG") and re.search(r"(KEY|TOKEN|SECRET|PASSWORD)\b", rest):
            fail(f"Dockerfile: a secret in a layer: {line}")
        if word in ("ENTRYPOINT", "CMD") and not rest.startswith("["):
            fail(f"Dockerfile: {word} through a shell swallows signals")
        if "apt-get install" in rest and not (
            "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest
        ):
            fail("Dockerfile: apt-get install leaves lists or recommended packages behind")
    if stage != "tools":
        fail(f"Dockerfile: the last stage is {stage}, not tools")
    for name in ("static", "tools"):
        if user.get(name) != "10001:10001":
            fail(f"Dockerfile: {name} runs as {user.get(name)}")
        text = "\n".join(stages.get(name, []))
        for part in ("HEALTHCHECK", "ENTRYPOINT", "PORT=8080", "HOME=/home/letta", "image.source"):
            if part not in text:
                fail(f"Dockerfile: {name} has no {part}")


def check_build_context(text):
    """What the image is built from reaches the builder, and the build script finds what it runs."""
    copied = set()
    for line in instructions(text):
        words = line.split()
        if words[0] == "COPY" and not any(word.startswith("--from") for word in words):
            copied.update(words[1:-1])
    patterns = [line[1:] for line in Path(".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in sorted(copied):
        if not any(fnmatch(pattern, source) or fnmatch(source, pattern) for pattern in patterns):
            fail(f".dockerignore keeps {source} from the Dockerfile's COPY")
    script = "scripts/build-static"
    for used in sorted(set(re.findall(r"scripts/[\w-]+", Path(script).read_text())) | {script}):
        if Path(used).exists() and used not in copied:
            fail(f"Dockerfile: {script} needs {used}, which no COPY brings")


def check_one_repository():
    """Every file that names the repository names the same."""
    cargo = tomllib.loads(Path("Cargo.toml").read_text())
    url = cargo["workspace"]["package"]["repository"]
    wanted = url.removeprefix("https://github.com/")
    files = ["install.sh", "Dockerfile", "digitalocean/cloud-init.yaml", "systemd/letta-server.service",
             "modal/launch.py", "daytona/launch.py", "daytona/Dockerfile", *map(str, Path("docs/deploy").glob("*.md"))]
    for name in files:
        text = Path(name).read_text()
        for found in re.findall(r"(?:github\.com|ghcr\.io|raw\.githubusercontent\.com)/([\w.-]+/[\w-]+)", text):
            if found.startswith("letta-ai/") and found != wanted:
                fail(f"{name}: names {found}, the repository is {wanted}")


def main():
    """Checks everything and reports."""
    check("fly.toml", tomllib.loads(Path("fly.toml").read_text()), FLY)
    check("railway.json", json.loads(Path("railway.json").read_text()), RAILWAY)
    check_dockerfile(Path("Dockerfile").read_text())
    check_build_context(Path("Dockerfile").read_text())
    check_one_repository()
    for text in failures:
        print(text, file=sys.stderr)
    print(f"manifests: {len(FLY)} keys of fly.toml, {len(RAILWAY)} of railway.json, the Dockerfile: "
          f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
