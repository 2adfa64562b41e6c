"""The units and the compose file of examples/service: whole, and in words that Bitfront knows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bitfront.cli.app import app
from bitfront.service.api import create_app
from bitfront.storage.engine import locate

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "examples" / "service"
BINARY = "/opt/bitfront/bin/bitfront"
UNITS = ("bitfront-serve.service", "bitfront-worker@.service")
COMMANDS: Any = typer.main.get_command(app)
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def settings(unit: str) -> dict[str, list[str]]:
    """Every directive of a unit with its values, in order."""
    found: dict[str, list[str]] = {}
    for line in (HERE / unit).read_text().replace("\\\n", " ").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def understood(words: list[str]) -> dict[str, Any]:
    """The options of a command of Bitfront's, as its own parser reads them."""
    command, *rest = words
    parsed: dict[str, Any] = COMMANDS.commands[command].make_context(command, list(rest)).params
    return parsed


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_runs_what_there_is_and_may_do_little(unit: str) -> None:
    found = settings(unit)
    binary, *words = shlex.split(found["ExecStart"][0])
    assert binary == BINARY
    options = understood(words)
    assert found["User"] == ["bitfront"]
    assert found["KillSignal"] == ["SIGTERM"]
    assert found["TimeoutStopSec"]
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID"):
        assert found[name] == ["yes"], name
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]
    written = [f"/var/lib/{name}" for name in found["StateDirectory"][0].split()]
    assert options.get("output") is None or str(options["output"]) in written
    assert "/var/lib/bitfront/artifacts" in written


def test_the_units_agree() -> None:
    serve, worker = ({**settings(unit)} for unit in UNITS)
    server, working = (understood(shlex.split(u["ExecStart"][0])[1:]) for u in (serve, worker))
    assert server["root"] == working["root"]
    for name in ("allow_hub", "allow_functions"):
        assert server[name] == working[name]
    for name in ("User", "StateDirectory", "UMask"):
        assert serve[name] == worker[name]
    assert set(serve["EnvironmentFile"]) <= set(worker["EnvironmentFile"])


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: the units are not verified")
    for unit in UNITS:
        text = (HERE / unit).read_text().replace(BINARY, sys.executable)
        (tmp_path / unit.replace("@", "@1")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("service", ["server", "worker"])
def test_a_service_of_compose(service: str) -> None:
    found = SERVICES[service]
    options = understood(shlex.split(found["command"]))
    places = {volume.split(":")[1] for volume in found["volumes"]}
    assert {str(root) for root in options["root"]} <= places
    environment = found["environment"]
    assert {environment["BITFRONT_ARTIFACTS"], "/output"} <= places
    url = locate(environment["BITFRONT_DB"])
    assert (url.host, url.password) == ("database", None)
    base = SERVICES["database"]["environment"]
    assert (url.username, url.database) == (base["POSTGRES_USER"], base["POSTGRES_DB"])
    assert found["depends_on"]["database"]["condition"] == "service_healthy"
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "database-password" in found["secrets"]
    for name in ("token_file", "read_token_file"):
        if options.get(name):
            assert options[name].name in found["secrets"]


def test_compose_is_whole() -> None:
    """What services use is declared, what is probed exists, and no secret is written down."""
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    used = {name for service in SERVICES.values() for name in service["secrets"]}
    assert used == set(COMPOSE["secrets"])
    mounts = {v.split(":")[0] for service in SERVICES.values() for v in service["volumes"]}
    assert {name for name in mounts if name[0] not in "./"} == set(COMPOSE["volumes"])
    probe = SERVICES["server"]["healthcheck"]["test"][-1]
    (address,) = re.findall(r'"http://127\.0\.0\.1:(\d+)(/\w+)"', probe)
    options = understood(shlex.split(SERVICES["server"]["command"]))
    assert int(address[0]) == options["port"]
    assert address[1] in create_app().openapi()["paths"]
    compile(probe, "healthcheck", "exec")
    assert SERVICES["database"]["healthcheck"]["test"][1] == "pg_isready"
    assert not re.search(r"POSTGRES_PASSWORD:|PGPASSWORD|BITFRONT_TOKEN", str(COMPOSE))


def test_the_image_is_of_what_there_is() -> None:
    build = SERVICES["server"]["build"]
    file = (HERE / build["context"] / build["dockerfile"]).resolve()
    assert file == HERE / "Dockerfile"
    lines = file.read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and line[0] not in "# "]
    users = [rest for step, rest in steps if step == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    sent = (HERE / "Dockerfile.dockerignore").read_text().splitlines()
    for name in (line[1:] for line in sent if line.startswith("!")):
        assert (ROOT / name).exists(), name
    assert "!constraints.txt" in sent
    assert "!examples/service/entrypoint.sh" in sent
    assert "[postgres,service]" in file.read_text()


def test_the_entry_gives_the_password_to_nobody_else(tmp_path: Path) -> None:
    entry = (HERE / "entrypoint.sh").read_text()
    assert os.stat(HERE / "entrypoint.sh").st_mode & stat.S_IXUSR
    secret = tmp_path / "password"
    secret.write_text("of the database\n")
    fake = tmp_path / "bitfront"
    fake.write_text('#!/bin/sh\necho "${PGPASSWORD-none}|$*"\n')
    fake.chmod(0o755)
    for place, password in ((secret, "of the database"), (tmp_path / "missing", "none")):
        script = tmp_path / "entry.sh"
        script.write_text(entry.replace("/run/secrets/database-password", str(place)))
        done = subprocess.run(
            ["/bin/sh", str(script), "worker", "--name", "a b"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == f"{password}|worker --name a b\n"
