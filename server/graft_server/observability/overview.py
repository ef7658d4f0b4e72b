"""A deployment as its server's folder shows it; imports neither torch nor Flower."""

import http.client
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from graft.core.deployment import read_server
from graft.core.files import AnyPath
from graft.core.forgetting import Forgotten, read_records
from graft.core.tables import read_table
from graft_server.deployment.authority import certificate_ends
from graft_server.deployment.heard import read_heard
from graft_server.durability import count_rounds
from graft_server.observability.finished_rounds import FinishedRounds
from graft_server.round_schedule import read_rounds

_ANSWER_LIMIT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceState:
    """An enrolled device: ``node`` as ``Heard.word`` has it, ``heard_s`` in epoch seconds, the
    latest round in which its domain was served, whether it has a model, and the error of that
    round, "" for none."""

    domain: str
    node: str
    heard_s: float | None
    round: int | None
    model: bool
    error: str
    certificate_ends: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """A deployment at one moment. Rounds are counted with round 0; dates are ISO 8601."""

    run: str
    superlink: bool
    depot: bool
    rounds: int
    finished: int
    models: int
    forgotten: tuple[str, ...]
    quarantined: tuple[str, ...]
    certificate_ends: str
    authority_ends: str
    signing_key_ends: str
    devices: tuple[DeviceState, ...]


def read_overview(
    server: Path, *, superlink: bool, depot: bool, rounds: FinishedRounds | None = None
) -> Overview:
    """The deployment now. ``superlink``, ``depot``: whether each answers; ``rounds``: those that
    were read before, which are not read again."""
    settings, heard, now_s = read_server(server), read_heard(server), time.time()
    run_folder = server / "runs" / settings.run
    finished, planned = count_rounds(run_folder), read_rounds(server)
    forgotten = Forgotten(record for record, _ in read_records(run_folder))
    models = _catalogue(run_folder, finished, forgotten)
    owners = set(models.values())
    latest = (rounds or FinishedRounds(run_folder, ledgers=False)).latest()
    arrived = {domain: index for index, some in enumerate(planned) for domain in some}
    ends = {name: f"{end:%Y-%m-%d}" for name, end in certificate_ends(server).items()}
    return Overview(
        run=settings.run,
        superlink=superlink and heard.is_current(now_s),
        depot=depot,
        rounds=len(planned),
        finished=finished,
        models=len(models),
        forgotten=tuple(each.domain_id for each in forgotten.records if each.reason == "forgotten"),
        quarantined=tuple(d for name, d in models.items() if name in forgotten.quarantined),
        certificate_ends=ends.get("server", "none"),
        authority_ends=ends.get("ca", "none"),
        signing_key_ends=ends.get("signing key", "none"),
        devices=tuple(
            DeviceState(
                domain=domain,
                node=heard.word(domain, now_s),
                heard_s=heard.by_device.get(domain),
                round=arrived.get(domain),
                model=domain in owners,
                error=latest[domain].error or "" if domain in latest else "",
                certificate_ends=ends.get(domain, "unknown"),
            )
            for domain in sorted(path.stem for path in (server / "nodes").glob("*.pub"))
        ),
    )


def superlink_answers(server: Path) -> bool:
    """Whether the SuperLink that was started last answers HTTP."""
    try:
        port = int((server / "state" / "superlink.port").read_text("utf-8"))
        if read_server(server).insecure:
            call = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_LIMIT_S)
        else:
            trust = ssl.create_default_context(cafile=server / "ca.pem")
            call = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=_ANSWER_LIMIT_S, context=trust
            )
        call.request("GET", "/")
        call.getresponse().close()
        call.close()
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def _catalogue(run_folder: AnyPath, finished: int, forgotten: Forgotten) -> dict[str, str]:
    """The domain of each model of the catalogue."""
    tables = []
    for index in reversed(range(finished)):  # back to one that has all of those before it
        path = run_folder / "rounds" / str(index) / "catalogue.parquet"
        tables.append(read_table(path))
        if (tables[-1].schema.metadata or {}).get(b"graft") != b"part":
            break
    pairs = [
        pair
        for table in reversed(tables)
        for pair in zip(table["model_id"].to_pylist(), table["domain_id"].to_pylist(), strict=True)
    ]
    return {name: domain for name, domain in pairs if name not in forgotten.model_ids}
