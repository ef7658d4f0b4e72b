"""learnware's search and reuse on exported target domains; runs in learnware's own environment.

    runs/peers/learnware/bin/python benchmarks/peers/learnware_peer.py FILE.npz ... > rows.json

A source uploads a specification (RKME) of its rows and its model. A target uploads the same of its
rows, is given the models that the search finds, and reuses them without or with its labels.

Legend: L labelled, U unlabelled, T test, N rows of L, U and T, S sources, C classes, D numbers of a
sample.
"""

import json
import logging
import sys
import time
import warnings

import numpy as np

REUSERS = ("averaging", "job-selector", "ensemble-pruning", "feature-augmentation")
_SPECIFICATION = "RKMETableSpecification"
_SOURCES = 5  # as many as graft selects


def main(paths):
    """A row a file and reuser, as JSON on stdout."""
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    rows = [row for path in paths for row in reuse(path)]
    json.dump(rows, sys.stdout)


def reuse(path):
    """Every reuser's row of one target domain."""
    from learnware.learnware import Learnware
    from learnware.market.base import BaseUserInfo
    from learnware.market.easy.searcher import EasyStatSearcher
    from learnware.model import BaseModel
    from learnware.specification import Specification, generate_rkme_table_spec

    given = np.load(path)
    x_ND, y_L, y_T = given["x_ND"], given["y_L"], given["y_T"]
    tested = slice(len(x_ND) - len(y_T), None)
    place_of = {row.tobytes(): place for place, row in enumerate(x_ND)}

    class Predictions(BaseModel):
        """A source's model: what it said of each row."""

        def __init__(self, logits_NC):
            super().__init__(input_shape=x_ND.shape[1:], output_shape=logits_NC.shape[1:])
            self.logits_NC = logits_NC

        def predict(self, X):
            rows = np.asarray(X, dtype=np.float32)
            return self.logits_NC[[place_of[row.tobytes()] for row in rows]]

        def fit(self, X, y):
            raise NotImplementedError

        def finetune(self, X, y):
            raise NotImplementedError

    source_ids = [str(source) for source in given["source_ids"]]
    model_bytes = dict(zip(source_ids, given["model_bytes_S"].tolist(), strict=True))
    market = []
    for place, (source, logits_NC) in enumerate(zip(source_ids, given["logits_SNC"], strict=True)):
        rkme = generate_rkme_table_spec(given[f"source_{place}"], cuda_idx=-1)
        specification = Specification(semantic_spec={}, stat_spec={_SPECIFICATION: rkme})
        market.append(Learnware(source, Predictions(logits_NC), specification, ""))

    started = time.process_time()
    own = generate_rkme_table_spec(x_ND[: tested.start], cuda_idx=-1)
    specified_s = time.process_time() - started
    user = BaseUserInfo(stat_info={_SPECIFICATION: own})
    found = EasyStatSearcher(None)(market, user, max_search_num=_SOURCES)
    mixtures = found.get_multiple_results()
    if mixtures:
        chosen = list(mixtures[0].learnwares)
    else:
        chosen = [item.learnware for item in found.get_single_results()[:1]]
    for name in REUSERS:
        started = time.process_time()
        try:
            predicted_T = _predict(name, chosen, x_ND[: len(y_L)], y_L, x_ND[tested])
        except Exception as error:  # a peer's failure is a row that names it
            predicted_T, message = None, f"{type(error).__name__}: {error}"
        else:
            message = ""
        yield {
            "file": path,
            "reuser": name,
            "sources": [item.id for item in chosen],
            "accuracy": None if predicted_T is None else float((predicted_T == y_T).mean()),
            "bytes": _json_bytes(own) + sum(model_bytes[item.id] for item in chosen),
            "device_s": specified_s + time.process_time() - started,
            "error": message,
        }


def _predict(name, chosen, x_LD, y_L, x_TD):
    from learnware.reuse import (
        AveragingReuser,
        EnsemblePruningReuser,
        FeatureAugmentReuser,
        JobSelectorReuser,
    )

    if name == "averaging":
        return AveragingReuser(chosen, mode="vote_by_prob").predict(x_TD).argmax(1)
    if name == "job-selector":
        return JobSelectorReuser(chosen, use_herding=False).predict(x_TD).argmax(1)
    if name == "ensemble-pruning":
        reuser = EnsemblePruningReuser(chosen, mode="classification")
    else:
        reuser = FeatureAugmentReuser(chosen, mode="classification")
    reuser.fit(x_LD, y_L)
    return np.asarray(reuser.predict(x_TD)).reshape(-1)


def _json_bytes(rkme):
    """The bytes of a specification as the package saves it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rkme.json"
        rkme.save(str(path))
        return path.stat().st_size


if __name__ == "__main__":
    main(sys.argv[1:])
