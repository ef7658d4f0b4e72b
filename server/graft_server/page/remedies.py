"""What an operator does about a failed domain, by the error that its results name."""

from types import MappingProxyType
from typing import Final

from graft import errors

# An error that is not here has its parent's; docs/errors.md says more of each.
_REMEDIES: Final = MappingProxyType(
    {
        "GraftError": "See docs/errors.md, and the logs in the server's and the device's state/.",
        "ConfigError": "Correct the key that the message names: in expansion.toml, or at the site.",
        "DataError": "At the site: graft data check reads every recording and prints the remedy.",
        "StorageError": "At the site: free space, or allow graft to write where the message says.",
        "ExtraMissingError": "Install the extra that the message names on the device.",
        "ArchitectureError": "Choose architectures that fit the device: devices.architectures.",
        "BackboneError": "Install the backbone on the device, or have it shipped.",
        "MessageError": "Install the same version of graft on the server and on the device.",
        "RequestForgedError": "Check the device's clock and that its server.pub is this server's.",
        "ResponseForgedError": "Revoke the device and enrol it anew if it does not end.",
        "StaleTrustError": "Run graft deploy rotate-key; it is due after a backup was restored.",
        "PayloadError": "Serve the domain again; if it recurs, check the device's disk and memory.",
        "TransportError": "Check the device's link to the depot's port, then serve it again.",
        "QuotaExceededError": "Wait, or raise the quota; the message says for how long.",
        "DeviceRefusedError": "Check by graft deploy status whether the device is enrolled.",
        "EdgeError": "Check the device's link and log; it is served again when it is back.",
        "NodesMissingError": "Start the device: graft deploy device. It is served when it is back.",
        "PolicyError": "The site's policy.toml forbids it; only the site can change that.",
        "BudgetError": "Raise the budget that the message names, or leave the domain out.",
        "RunError": "Repair the run folder that the message names, or restore it from a backup.",
    }
)


def remedy(error: str) -> str:
    """What to do about an error, by its class name."""
    kind = getattr(errors, error, None)
    lineage = kind.__mro__ if isinstance(kind, type) else ()
    found = (_REMEDIES[each.__name__] for each in lineage if each.__name__ in _REMEDIES)
    return next(found, _REMEDIES["GraftError"])
