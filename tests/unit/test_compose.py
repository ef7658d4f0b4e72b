"""No Docker engine is needed to see that the compose file says what graft understands.

``docker compose config`` checks it against compose's own schema where that command is.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from compose import ROOT, compose_file, graft_services, mounts, services, words
from graft_server.deployment.enrolment import create_deployment
from graft_server.observability.metrics import DeploymentMetrics
from prometheus_client import CollectorRegistry, ProcessCollector

from graft.cli.main import app
from graft.core.config import ExpansionConfig
from graft.core.deployment import ServerSettings
from graft.data import ImuWorld, write_dataset
from graft.data.synthetic.imu import CHANNELS

FIELD = [name for name in services() if name != "simulate"]
LONG_LIVED = [name for name in FIELD if name not in ("sample", "setup")]
DEVICES = [name for name in FIELD if name.startswith("device-")]
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "graft.json"
SETTINGS = ServerSettings(run="run", host="server")
# Of the extras [server], [simulation] and [data]; those that Flower brings too are on every device.
LEFT_OUT = ("ray", "pyarrow", "matplotlib", "simpy", "prometheus_client", "sklearn", "jinja2")


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The parameters of a ``graft`` command line; raises where one is unknown or of another type."""
    command: click.Command = typer.main.get_command(app)
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    return command.make_context(command.name, list(arguments)).params


@pytest.mark.parametrize("name", graft_services())
def test_every_service_runs_a_command_that_graft_has(name: str) -> None:
    assert parsed(words(name))


def test_every_health_check_that_asks_graft_asks_a_command_that_it_has() -> None:
    checks = [services()[name]["healthcheck"]["test"] for name in ("server", "depot")]
    for kind, program, *arguments in checks:
        assert (kind, program) == ("CMD", "graft")
        assert parsed(arguments)


def test_the_compose_command_itself_takes_the_file() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("docker compose is not here")
    command = [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "--profile", "field"]
    done = subprocess.run([*command, "config", "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_volumes_and_networks_are_declared_and_nothing_else_is() -> None:
    file = compose_file()
    named = {name for service in services() for name in mounts(service).values()}
    named = {name for name in named if not name.startswith(".")}  # files of this folder
    joined = {net for service in services().values() for net in service.get("networks", ())}
    assert named == set(file["volumes"])
    assert joined == set(file["networks"])


@pytest.mark.parametrize("name", FIELD)
def test_who_is_waited_for_exists_and_can_fulfil_it(name: str) -> None:
    for other, wanted in services()[name].get("depends_on", {}).items():
        once = services()[other].get("restart") == "no"
        assert (wanted["condition"] == "service_completed_successfully") is once


@pytest.mark.parametrize("name", FIELD)
def test_no_service_of_the_field_may_more_than_it_needs(name: str) -> None:
    service = services()[name]
    assert service["profiles"] == ["field"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0:", "root"))
    assert "mem_limit" in service
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service)
    assert "network_mode" not in service or service["network_mode"] == "none"


@pytest.mark.parametrize("name", LONG_LIVED)
def test_what_runs_for_long_is_started_again(name: str) -> None:
    assert services()[name]["restart"] == "unless-stopped"


def test_only_the_public_ports_and_this_machines_grafana_are_published() -> None:
    published = {name: s["ports"] for name, s in services().items() if "ports" in s}
    flower, depot = SETTINGS.flower_port, SETTINGS.depot_port
    assert published == {
        "server": [f"{flower}:{flower}"],
        "depot": [f"{depot}:{depot}"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_each_device_sees_its_own_folder_and_data_alone() -> None:
    enrolled = parsed(words("setup"))["device"]
    assert len(DEVICES) == len(enrolled) == parsed(words("sample"))["domains"]
    owned = {name: path for path, name in (mounts("setup") | mounts("sample")).items()}
    for name, domain in zip(DEVICES, enrolled, strict=True):
        params = parsed(words(name))
        assert mounts(name).keys() == {str(params["folder"]), str(params["data"])}
        folder, data = (mounts(name)[str(params[each])] for each in ("folder", "data"))
        assert (owned[folder], owned[data]) == (f"/field/devices/{domain}", f"/data/{domain}")
        assert f"{data}:/data:ro" in services()[name]["volumes"]


def test_a_volume_is_mounted_on_a_folder_that_the_image_gives_to_its_user() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    domains = re.search(r'ARG DOMAINS="([^"]*)"', text)
    assert domains is not None
    assert domains[1].split() == list(parsed(words("setup"))["device"])
    line = re.search(r"install -d -o graft -g graft (/field .*?) \\", text)
    assert line is not None
    made = set(line[1].split())
    made |= {f"{top}/{each}" for each in domains[1].split() for top in ("/field/devices", "/data")}
    assert {target for name in graft_services()[1:] for target in mounts(name)} <= made


@pytest.mark.parametrize("name", ["server", "depot"])
def test_server_and_depot_see_the_servers_folder_and_not_the_authoritys_key(name: str) -> None:
    assert mounts(name) == {str(parsed(words(name))["folder"]): "server"}


def test_devices_call_services_that_are_on_their_network(tmp_path: Path) -> None:
    world = ImuWorld(2, 40, seed=0)
    write_dataset(tmp_path, world.task, channels=CHANNELS, rate_hz=None, licence="synthetic")
    params = parsed(words("setup"))
    for host in (params["host"], params["depot_host"]):
        assert set(services()[DEVICES[0]]["networks"]) & set(services()[host]["networks"])
    made = create_deployment(
        tmp_path / "field",
        host=params["host"],
        depot_host=params["depot_host"],
        dataset=tmp_path,
        config=ExpansionConfig(),
        flower_port=params["flower_port"],
        depot_port=params["depot_port"],
    )
    assert (made.flower_port, made.depot_port) == (SETTINGS.flower_port, SETTINGS.depot_port)


def test_prometheus_asks_the_ports_that_server_and_depot_answer_at() -> None:
    table = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text("utf-8"))
    asked = {c["job_name"]: c["static_configs"][0]["targets"] for c in table["scrape_configs"]}
    port = SETTINGS.metrics_port
    assert asked == {"server": [f"server:{port}"], "depot": [f"depot:{port + 1}"]}
    for name in asked:
        assert parsed(words(name))["metrics_host"] == "0.0.0.0"
        assert "metrics" in services()[name]["networks"]


def queried() -> set[str]:
    """Every name of a metric in the dashboard's queries."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    found = {name for query in queries for name in re.findall(r"(?:graft|process)_\w+", query)}
    assert all(any(name in query for name in found) or "up{" in query for query in queries)
    return found


def exported(server: Path) -> set[str]:
    """Every sample's name that server and depot give."""
    registry = CollectorRegistry()
    registry.register(DeploymentMetrics(server, dict))
    ProcessCollector(registry=registry)
    names = {sample.name for family in registry.collect() for sample in family.samples}
    if find_spec("graft_server.depot.interceptor") is not None:
        from graft_server.depot.interceptor import DepotMetrics

        depot = CollectorRegistry()
        DepotMetrics(depot)
        for family in depot.collect():
            ending = {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")
            names.add(family.name + ending)
    return names


def test_the_dashboard_asks_for_metrics_that_are_exported(tmp_path: Path) -> None:
    world = ImuWorld(2, 40, seed=0)
    write_dataset(tmp_path, world.task, channels=CHANNELS, rate_hz=None, licence="synthetic")
    create_deployment(
        tmp_path / "field",
        host="server",
        dataset=tmp_path,
        config=ExpansionConfig(),
        flower_port=1,
        depot_port=2,
    )
    server = tmp_path / "field" / "server"
    (server / "state").mkdir()
    told = {"round": 0, "phase": "learn", "done": 1, "wanted": 2, "payload_bytes": 3}
    (server / "state" / "progress.json").write_text(json.dumps(told))
    missing = queried() - exported(server)
    if find_spec("graft_server.depot.interceptor") is None:
        missing = {name for name in missing if not name.startswith("graft_depot_")}
    assert not missing


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    provisioning = ROOT / "docker" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        assert panel["datasource"]["uid"] == source["uid"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "graft.yml").read_text())[
        "providers"
    ]
    mounted = dict(v.split(":")[:2] for v in services()["grafana"]["volumes"] if isinstance(v, str))
    assert mounted["./docker/grafana/dashboards"] == provider["options"]["path"]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"


def test_the_image_copies_every_package_of_the_wheel() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    copied = (ROOT / "Dockerfile").read_text("utf-8")
    taken = (ROOT / ".dockerignore").read_text("utf-8")
    for package in table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {package} {package}\n" in copied
        assert f"!{package}\n" in taken


def test_the_images_torch_is_the_constraints() -> None:
    (pinned,) = re.findall(r"torch==[\d.]+", (ROOT / "Dockerfile").read_text("utf-8"))
    assert pinned in (ROOT / ".ci" / "constraints.txt").read_text("utf-8").splitlines()
    for page in ("deployment.md", "raspberry-pi.md"):
        assert f" {pinned}\n" in (ROOT / "docs" / page).read_text("utf-8")


def test_the_images_have_the_targets_and_the_user_that_the_compose_file_names() -> None:
    recipe = (ROOT / "Dockerfile").read_text("utf-8")
    for name in (*graft_services(), "prometheus"):
        assert f" AS {services()[name]['build']['target']}\n" in recipe
    users = {services()[name]["user"] for name in FIELD if name in graft_services()}
    assert users == {"10001:10001"}
    assert f"USER {services()['prometheus']['user']}\n" in recipe
    assert recipe.count("USER 10001:10001\n") == 2


def test_a_device_runs_on_the_base_dependencies() -> None:
    program = (
        f"import sys; sys.modules |= dict.fromkeys({LEFT_OUT})\n"
        "import graft.cli.main, graft_client.deployed_app, graft_client.supernode\n"
        "import graft_server.flower.superlink, graft_simulation.clock.calibrate\n"
        "from graft.cli.main import app\n"
        "app(['deploy', 'device', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
