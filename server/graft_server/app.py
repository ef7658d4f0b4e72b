"""The ServerApp: one run of the expansion, with the model depot beside it on loopback."""

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from graft.core.config_files import read_run_settings
from graft.core.ending import prepare_app
from graft.core.files import replace_file
from graft.data.worlds import open_world
from graft.errors import GraftError
from graft.methods import for_output
from graft_server.depot.server import DepotServer
from graft_server.flower.edge import EdgeSettings, connect_flower
from graft_server.model_store import open_store
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.run_folder import RunFolder

log = logging.getLogger("graft")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What ``flwr run`` starts. Its nodes are on this machine, so the depot needs no TLS."""
    prepare_app()
    source = read_run_settings(context.run_config, f"{context.run_id:x}")
    config, path = source.config, source.folder
    world = open_world(config.world, config.seed)
    config = for_output(config, world.task)
    folder = RunFolder(path)
    folder.begin(config, world)
    store = open_store(folder.models, world.task)
    with DepotServer(store, "127.0.0.1:0", insecure=True) as depot:
        replace_file(path / "depot.address", f"127.0.0.1:{depot.port}".encode())
        try:
            edge = EdgeSettings(run=folder.run_id, join_timeout_s=source.join_timeout_s)
            digest = run_rounds(
                connect_flower(grid, edge, world.domain_ids),
                RunSettings(config=config, world=world, folder=folder),
            )
        except GraftError as error:
            folder.fail(f"{type(error).__name__}: {error}")
            log.error("run failed: %s", error)
            raise
    log.info("run %s finished: hash %s", folder.run_id, digest)
