"""Forgetting a domain of a deployment: also its enrolment, and a second copy of the records.

The copy in ``server/forgotten`` outlives a run folder that is restored from a backup.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from graft.core.files import read_lines, replace_file
from graft.core.forgetting import FOLDER, Descendants, Forgetting, Forgotten
from graft_server.forgetting import forget, read_forgotten, settle
from graft_server.round_schedule import read_rounds
from graft_server.run_folder import RunFolder


def enrolments(server: Path, folder: str = "nodes") -> dict[str, str]:
    """The digest of the key of each enrolled (or, in folder "revoked", revoked) device."""
    paths = (server / folder).glob("*.pub")
    return {path.stem: sha256(path.read_bytes()).hexdigest() for path in paths}


def forget_device(
    server: Path, folder: RunFolder, domain_id: str, policy: Descendants
) -> Forgetting:
    """Forget a domain while no expansion runs: its models, and its enrolment.

    A killed call is completed by the next, or by the next expansion. Raises RunError for a domain
    that was never enrolled.
    """
    forgotten, own = complete_forgetting(server, folder), enrolments(server)
    earlier = [
        each
        for each in forgotten.records
        if (each.reason, each.domain_id) == ("forgotten", domain_id)
    ]
    if earlier and domain_id not in own:
        return earlier[-1]
    known = {**enrolments(server, "revoked"), **own}
    record = forget(
        folder,
        domain_id,
        policy,
        known=known,
        enrolment=known.get(domain_id, ""),
        pushed=_pushed(server, domain_id),
        collect=folder.count_rounds() == len(read_rounds(server)),
    )
    complete_forgetting(server, folder)
    return record


def complete_forgetting(server: Path, folder: RunFolder) -> Forgotten:
    """Carry out what the records say, whatever was killed or restored; gives the records."""
    one, other = server / FOLDER, folder.path / FOLDER
    for source, target in ((one, other), (other, one)):
        for path in source.glob("*.json"):
            if not (target / path.name).exists():
                replace_file(target / path.name, path.read_bytes())
    forgotten = settle(folder)
    for domain_id in refused_domains(server, folder):
        (server / "nodes" / f"{domain_id}.pub").unlink(missing_ok=True)
    return forgotten


def refused_domains(server: Path, folder: RunFolder) -> frozenset[str]:
    """The enrolled domains that were forgotten and have the key of that time."""
    enrolled: Mapping[str, str] = enrolments(server)
    return read_forgotten(folder.path).refused(enrolled) & enrolled.keys()


def _pushed(server: Path, domain_id: str) -> set[str]:
    """The models that a device pushed, by the depot's log of calls."""
    path = server / "state" / "depot-calls.jsonl"
    if not path.exists():
        return set()
    calls = read_lines(path, lambda call: (call["device"], call["rpc"], call["model_id"]))
    return {model_id for device, rpc, model_id in calls if (device, rpc) == (domain_id, "Push")}
