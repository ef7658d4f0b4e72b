"""``graft forget`` and ``graft deploy forget``: the models of a domain leave the system."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from graft.cli.shared import Format, FormatOption, RunArgument, ServerOption, announce, print_facts
from graft.core.config_files import read_config
from graft.core.forgetting import Descendants, Forgetting

DomainArgument = Annotated[str, Argument(help="The domain.")]
DescendantsOption = Annotated[
    Descendants | None,
    Option(
        help="Models that learned from it. keep: they stay. quarantine: they stay and are no "
        "sources any more. retrain: the next round trains them again without it. "
        "Default: forget.descendants of the configuration."
    ),
]


def forget(
    run: RunArgument,
    domain: DomainArgument,
    descendants: DescendantsOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Remove a domain from a run that is not running: its models, profile and results.

    The signed record in RUN/forgotten keeps the models from coming back. If models are to be
    trained again, graft simulate --resume RUN does so. Repeat an interrupted command.
    """
    from graft import api

    _show(api.forget(run, domain, descendants=descendants), output)


def deploy_forget(
    domain: DomainArgument,
    server: ServerOption = Path("server"),
    descendants: DescendantsOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Remove a domain from a deployment while no round runs: its models, profile and results.

    Its enrolment ends, too; graft deploy enrol admits it anew. Devices remove its models from
    their caches when they start and at their next round. If models are to be trained again,
    graft deploy expand does so. Repeat an interrupted command.
    """
    from graft_server.deployment.forgetting import forget_device
    from graft_server.flower.deployed_app import expansion_lock, run_folder
    from graft_server.serving.hold import serving_paused

    server = server.absolute()
    policy = descendants or read_config(server / "expansion.toml").forget.descendants
    with serving_paused(server, announce), expansion_lock(server):
        record = forget_device(server, run_folder(server), domain, policy)
    _show(record, output)


def _show(record: Forgetting, output: Format) -> None:
    learned = [f"{each.domain_id} (round {each.round_index})" for each in record.descendants]
    facts = {
        "forgotten": record.domain_id,
        "finished rounds": record.round_index,
        "models": list(record.models),
        "descendants": learned,
        "averages": list(record.averages),
        "policy": record.policy,
    }
    print_facts(facts, output)
