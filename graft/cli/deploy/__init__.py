"""``graft deploy``: a system of real devices."""

from collections.abc import Callable
from typing import Any

import typer

from graft.cli.deploy.calibrate import calibrate
from graft.cli.deploy.expand import appeal, expand
from graft.cli.deploy.page import operator, page
from graft.cli.deploy.services import depot, device, server
from graft.cli.deploy.setup import enrol, init, renew, revoke, rotate_key, sample, units
from graft.cli.deploy.status import health, status, traffic
from graft.cli.forget import deploy_forget

deploy_app = typer.Typer(
    help="Real devices: set up, run, expand, inspect, measure.", no_args_is_help=True
)
_EXAMPLES: dict[Callable[..., Any], str] = {
    init: "graft deploy init field --host 192.0.2.10 --dataset my-folder --device ann --device bob",
    enrol: "graft deploy enrol field carol",
    revoke: "graft deploy revoke bob --server field/server",
    deploy_forget: "graft deploy forget bob --server field/server",
    renew: "graft deploy renew field; graft deploy renew field ann",
    rotate_key: "graft deploy rotate-key field --ca field/ca",
    server: "graft deploy server field/server --serve",
    depot: "graft deploy depot field/server",
    device: "graft deploy device field/devices/ann --data my-folder",
    expand: "graft deploy expand carol --server field/server",
    appeal: "graft deploy appeal carol --server field/server",
    page: "graft deploy page field/server",
    operator: "graft deploy operator field/server olga",
    status: "graft deploy status --server field/server",
    traffic: "graft deploy traffic --server field/server --simulated runs/same",
    health: "graft deploy health field/server",
    sample: "graft deploy sample field-data --domains 5",
    units: "graft deploy units units",
    calibrate: "graft deploy calibrate --out mine.toml; "
    "graft simulate --set devices.classes_file=mine.toml",
}
for command, example in _EXAMPLES.items():
    name = command.__name__.removeprefix("deploy_").replace("_", "-")
    deploy_app.command(name, epilog=f"Example: {example}")(command)
