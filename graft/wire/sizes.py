"""The encoded lengths of messages, by which budgets are planned."""

from dataclasses import dataclass

from graft.core.exchange import Request, Response
from graft.wire.messages.codec import encode_join, encode_request, encode_response
from graft.wire.transfer.link import StoredModel, acknowledgement_bytes


@dataclass(frozen=True, slots=True)
class EncodedSizes:
    """``MessageSizes`` by encoding the message."""

    def request_bytes(self, request: Request) -> int:
        """See ``MessageSizes.request_bytes``."""
        return len(encode_request(request))

    def response_bytes(self, response: Response) -> int:
        """See ``MessageSizes.response_bytes``."""
        return len(encode_response(response))

    def join_bytes(self, domain_id: str) -> int:
        """See ``MessageSizes.join_bytes``."""
        return len(encode_join(domain_id))

    def acknowledgement_bytes(self) -> int:
        """See ``MessageSizes.acknowledgement_bytes``."""
        most = 2**46
        return acknowledgement_bytes(
            StoredModel(model_id="f" * 64, payload_bytes=most, base_bytes=most, residual_bytes=most)
        )
