"""The hostile device of hostile.py: its ClientApp is changed as Python starts.

This folder is on PYTHONPATH of that device's processes alone, and GRAFT_HOSTILE names what it does
in place of an honest answer. Its answers are signed with its own key, as it is enrolled.
"""

import importlib.abc
import importlib.util
import os
import sys
import time
from dataclasses import replace

TARGET = "graft_client.deployed_app"


class Finder(importlib.abc.MetaPathFinder):
    """Changes the ClientApp's module once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            become_hostile(module, os.environ["GRAFT_HOSTILE"])

        spec.loader.exec_module = exec_module
        return spec


def become_hostile(module, kind):
    """Change what the module answers."""
    from graft.wire.messages import codec
    from graft.wire.messages.replies import Reply

    answer, handle = module._reply, module.handle

    def spoiled(context, site, record):
        if kind == "silent":
            time.sleep(1e6)
        reply = answer(context, site, record)
        request = codec.decode_request(module.request_bytes(record))
        response = SPOILERS[kind](request, codec.decode_response(reply.response))
        body = codec._serialise(codec.message_of(response))
        return Reply(response=body, transfers=reply.transfers)

    def first_again(context, record, *more):
        path = module.open_site(context).folder / "state" / "first-answer"
        parts = handle(context, record, *more)
        if not path.exists():
            path.write_text(repr(parts), "utf-8")
        return __import__("ast").literal_eval(path.read_text("utf-8"))

    if kind == "replay":
        module.handle = first_again
    else:
        module._reply = spoiled


def inadmissible_profile(request, response):
    import numpy as np

    if not hasattr(response, "statistics_D"):
        return response
    far_D = np.full_like(response.statistics_D, 3e38)
    return replace(response, statistics_D=far_D, num_samples=2**63 - 1)


def inadmissible_result(request, response):
    if not hasattr(response, "metrics"):
        return response
    metrics = {**response.metrics, "accuracy": 98765.0, "num_test": 1e300}
    return replace(response, metrics=metrics, compute_s=1e308)


def anothers_model(request, response):
    card = getattr(response, "card", None)
    if card is None:
        return response
    other = request.sources[0]
    return replace(
        response,
        card=replace(
            card,
            model_id=other.model_id,
            # As its own: a method that keeps a source as it is names it among the parents.
            parents=tuple(each for each in card.parents if each != other.model_id),
            payload_bytes=other.payload_bytes,
            base_bytes=other.base_bytes,
            residual_bytes=other.residual_bytes,
        ),
    )


def false_reports(request, response):
    from graft.core.records import RejectedSource

    cards = getattr(request, "candidates", ()) or getattr(request, "sources", ())
    if not hasattr(response, "rejected"):
        return response
    rejected = tuple(
        RejectedSource(
            by=request.domain_id,
            domain_id=card.domain_id,
            model_id=card.model_id,
            reason="centroids",
        )
        for card in cards
        if card.model_id not in getattr(response, "chosen", ())
    )
    return replace(response, rejected=rejected)


def markup(request, response):
    from graft.core.exchange import Failure

    text = "[/] [bold red]\x1b[2J\x1b]0;owned\x07 <script>alert(1)</script> \u202egnp"
    return Failure(
        domain_id=request.domain_id, round_index=request.round_index,
        method=getattr(request, "method", ""), error="[/red]", message=text,
    )  # fmt: skip


SPOILERS = {
    "inadmissible-profile": inadmissible_profile,
    "inadmissible-result": inadmissible_result,
    "anothers-model": anothers_model,
    "false-reports": false_reports,
    "markup": markup,
    "silent": lambda request, response: response,
}

if os.environ.get("GRAFT_HOSTILE"):
    sys.meta_path.insert(0, Finder())
