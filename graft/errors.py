"""The error tree, drawn once.

GraftError
├── ConfigError                a key or value in a configuration is not acceptable
├── DataError                  what a person or site handed in cannot be used
│   ├── DatasetFormatError     a folder, file or archive is not in the layout it claims
│   ├── DomainEmptyError       a domain holds no (labelled) rows
│   ├── DomainClassError       a domain's labels are unusable (one class, out of range)
│   ├── DomainValueError       NaN or infinity in the windows
│   └── DomainShapeError       wrong channel count, length or dtype
├── StorageError               a place cannot be read or written: full, read-only, forbidden
├── ExtraMissingError          an optional library is not installed; names the extra
├── ArchitectureError          an architecture is unknown or does not fit the device
│   └── BackboneError          a backbone is not on this machine, or is another than it says
├── MessageError               a message between server and device cannot be decoded
│   ├── RequestForgedError     a request is not the server's, or was carried out before
│   ├── ResponseForgedError    an answer is not that device's, or is one to another request
│   └── StaleTrustError        the server's key or catalogue is older than seen, or has expired
├── PayloadError               a model payload cannot be accepted
│   ├── PayloadTruncatedError  fewer bytes than announced
│   ├── PayloadChangedError    the bytes do not hash to the model id, or are forged
│   ├── PayloadLimitError      too large, too many tensors, wrong shapes, NaN
│   └── ModelForgottenError    the model is one of a domain that was forgotten
├── TransportError             a shipment could not be completed
│   ├── ModelMissingError      the depot does not hold the model asked for
│   ├── QuotaExceededError     this device has used its share; says how long to wait
│   ├── DeviceRefusedError     the depot does not serve a device of this name
│   └── ProxyError             the metering TCP proxy cannot listen, or lost its meter
├── EdgeError                  the conversation with the domains broke
│   ├── DomainLostError        a domain dropped out in the middle of a round
│   └── NodesMissingError      fewer nodes than expected within the bounded wait
├── PolicyError                the site's own policy forbids what was asked
├── BudgetError                a limit of bytes, time or memory does not reach
└── RunError                   a run folder is missing, incomplete or of another version
    └── ExpansionFailedError   one or more domains failed; names them

Every message says what, what it got, and what it wanted; docs/errors.md has a section for each.
"""


class GraftError(Exception):
    """Root of every error that graft raises on purpose."""

    @classmethod
    def page(cls) -> str:
        """Where in the documentation this error is explained."""
        return f"docs/errors.md#{cls.__name__.lower()}"


class ConfigError(GraftError):
    """A configuration key or value is not acceptable."""


class ExtraMissingError(GraftError):
    """An optional library is not installed; the message names the extra that brings it."""


class StorageError(GraftError):
    """A file or folder cannot be read or written: a full disk, a read-only or forbidden place."""


def missing_extra(library: str, extra: str) -> ExtraMissingError:
    """The error of a library that one of graft's own extras brings."""
    return ExtraMissingError(
        f"{library}: got no such library, wanted pip install 'graft-fl[{extra}]'"
    )


class DataError(GraftError):
    """What a person or a site handed in cannot be used."""


class DatasetFormatError(DataError):
    """A folder, file or archive is not in the layout it claims."""


class DomainEmptyError(DataError):
    """A domain holds no usable rows."""


class DomainClassError(DataError):
    """A domain's labels are unusable: one class only, or outside the dataset's classes."""


class DomainValueError(DataError):
    """A domain's windows hold NaN or infinity."""


class DomainShapeError(DataError):
    """A domain's arrays have the wrong channel count, length or dtype."""


class ArchitectureError(GraftError):
    """An architecture is unknown, or does not fit the device."""


class BackboneError(ArchitectureError):
    """A backbone's weights are not on this machine, or have another hash than it says."""


class MessageError(GraftError):
    """A message between server and device cannot be decoded."""


class RequestForgedError(MessageError):
    """A request is not the run's server's, or it comes a second time."""


class ResponseForgedError(MessageError):
    """An answer is not that device's, or is one to another request."""


class StaleTrustError(MessageError):
    """A server's signing key or catalogue is older than one seen before, or has expired."""


class PayloadError(GraftError):
    """A model payload cannot be accepted."""


class PayloadTruncatedError(PayloadError):
    """A payload has fewer bytes than announced."""


class PayloadChangedError(PayloadError):
    """A payload does not hash to its model id, or its signature does not verify."""


class PayloadLimitError(PayloadError):
    """A payload breaks a limit: bytes, tensor count, shapes, or finite values."""


class ModelForgottenError(PayloadError):
    """The model is one of a domain that was forgotten, or learned from it; it is stored no more."""


class TransportError(GraftError):
    """A shipment could not be completed."""


class ModelMissingError(TransportError):
    """The depot does not hold the model that was asked for."""


class QuotaExceededError(TransportError):
    """The depot's quota for this device is used up for ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type["QuotaExceededError"], tuple[str, float]]:
        return type(self), (str(self), self.retry_after_s)


class DeviceRefusedError(TransportError):
    """The depot serves no device of this name; trying again does not help."""


class ProxyError(TransportError):
    """The metering TCP proxy cannot listen, or could not write what it metered."""


class EdgeError(GraftError):
    """The conversation with the domains broke."""


class DomainLostError(EdgeError):
    """A domain dropped out in the middle of a round."""


class NodesMissingError(EdgeError):
    """Fewer nodes than expected answered within the bounded wait."""


class PolicyError(GraftError):
    """The site's own policy forbids what was asked."""


class BudgetError(GraftError):
    """A limit of bytes, time or memory does not reach for what was asked."""


class RunError(GraftError):
    """A run folder is missing, incomplete or of another version."""


class ExpansionFailedError(RunError):
    """One or more domains failed; the message names them."""
