"""Appeals of domains whose models target domains reported: a second check by the server."""

from dataclasses import dataclass

from graft.errors import ModelMissingError
from graft_server.model_store import find_fault, open_store
from graft_server.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Appeal:
    """The outcome of an appeal.

    Parameters
    ----------
    domain_id : str
        The domain.
    reports : int
        Confirmed reports on its models.
    fault : str
        The fault that the server found again, "" for none: then the reports are cleared.
    """

    domain_id: str
    reports: int
    fault: str


def appeal(folder: RunFolder, domain_id: str) -> Appeal:
    """Check a domain's models again, and clear the reports on them where they have no fault.

    A run that is going on reads the outcome when it is next started.

    Raises
    ------
    ModelMissingError
        No model of the domain is in the catalogue.
    RunError
        The folder is no run's.
    """
    config, task, state = folder.read_config(), folder.read_task(), folder.read_state()
    cards = [card for card in state.catalogue if card.domain_id == domain_id]
    if not cards:
        raise ModelMissingError(f"appeal of {domain_id}: got no model of it in the catalogue")
    store = open_store(folder.models, task)
    faults = [fault for card in cards if (fault := find_fault(card, store, task, config))]
    if not faults:
        folder.clear_reports(domain_id)
    reports = [r for r in state.rejections if r.confirmed and r.domain_id == domain_id]
    return Appeal(domain_id=domain_id, reports=len(reports), fault=faults[0] if faults else "")
