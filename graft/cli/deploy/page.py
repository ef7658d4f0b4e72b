"""``graft deploy page`` and ``operator``: the deployment in a browser, and who may see it."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from graft.cli.deploy.status import depot_serves
from graft.cli.shared import Format, FormatOption, announce, print_facts
from graft.core.addresses import join_address
from graft.core.deployment import read_server
from graft.errors import ConfigError

FolderArgument = Annotated[Path, Argument(help="The server's folder.")]
PAGE_PORT = 9466


def page(
    folder: FolderArgument,
    host: Annotated[
        str, Option(help="Address to listen on. Another than loopback needs a login and TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=1, max=65535, help="Port of the page.")] = PAGE_PORT,
    name: Annotated[
        list[str] | None, Option(help="A name under which browsers call the page; repeatable.")
    ] = None,
    certificate: Annotated[
        Path | None, Option(help="TLS certificate as PEM. Default: the server's own.")
    ] = None,
    key: Annotated[Path | None, Option(help="Its key as PEM.")] = None,
    runs: Annotated[
        list[Path] | None, Option(help="A folder of more run folders to show; repeatable.")
    ] = None,
) -> None:
    """Serve the operator's page: devices, rounds, bytes, failures and reports, live.

    The page reads the server's folder and changes nothing. On loopback, without a login, it serves
    the user who started it; with the login of graft deploy operator it serves who knows it.
    Elsewhere it needs that login, and uses TLS. Runs until Ctrl-C or SIGTERM.
    """
    import uvicorn
    from graft_server.page.app import page_app
    from graft_server.page.login import FILE, Login

    from graft.wire.own_user import serve_own_user_alone

    folder = folder.absolute()
    settings = read_server(folder)
    login = Login(folder) if (folder / FILE).exists() else None
    is_local = _is_loopback(host)
    if not is_local and login is None:
        raise ConfigError(f"--host: got {host!r} without a login; graft deploy operator sets one")
    if (certificate is None) != (key is None):
        raise ConfigError("--certificate and --key: got one of them, wanted both or none")
    own = (folder / "tls.pem", folder / "tls.key")
    files = (certificate, key) if certificate and key else None if is_local else own
    if files and not all(path.exists() for path in files):
        raise ConfigError(f"{files[0]}: got no certificate and key, wanted them for TLS")
    if login is None:
        serve_own_user_alone("page")
    hosts = ["127.0.0.1", "localhost", "::1", settings.host, host, *(name or ())]
    app = page_app(
        folder,
        hosts=hosts,
        login=login,
        depot=lambda: depot_serves(folder),
        runs=[each.absolute() for each in runs or ()],
    )
    announce(f"page: {'https' if files else 'http'}://{join_address(host, port)}/")
    uvicorn.run(
        app,
        host=host,
        port=port,
        ssl_certfile=files[0] if files else None,
        ssl_keyfile=str(files[1]) if files else None,
        log_level="error",
        access_log=False,
        ws="none",
        server_header=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=2,
    )


def operator(
    folder: FolderArgument,
    name: Annotated[str, Argument(help="The operator's name.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Set the login of the operator's page: a name, and a password that is asked for.

    The password is taken from GRAFT_OPERATOR_PASSWORD where that is set. A running page uses a
    new login after it was started again.
    """
    from graft_server.page.login import write_login

    read_server(folder)
    password = os.environ.get("GRAFT_OPERATOR_PASSWORD") or typer.prompt(
        "Password", hide_input=True, confirmation_prompt=True
    )
    write_login(folder, name, password)
    print_facts({"operator": name}, output)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
