"""The examples in the docstrings of the public names run, against one tiny run."""

import doctest
from pathlib import Path

import pytest
from graft_server.export import model_folder

import graft
from graft import api
from graft.core import ports
from graft.methods import base
from graft.models import registry
from graft.training import task

# ``graft.simulate``'s own example comes first: it makes the run that others read.
MODULES = (api, base, registry, task, ports, model_folder)
PUBLIC = {
    api: ("simulate", "open_run"),
    base: ("Method",),
    registry: ("Architecture",),
    task: ("TrainingTask",),
    ports: ("Edge", "ModelStore", "WeightTransport", "Tracker", "Clock"),
    model_folder: ("load_model",),
}


def test_every_example_of_a_docstring_runs_and_every_public_name_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for module in MODULES:
        names = {"graft": graft, "Path": Path, **vars(module)}
        found = [each for each in finder.find(module, globs=names) if each.examples]
        # In the order of the file, since ``open_run`` reads what ``simulate`` made.
        for test in sorted(found, key=lambda each: each.lineno or 0):
            said: list[str] = []
            runner.run(test, out=said.append)
            assert not runner.summarize(verbose=False).failed, "".join(said)
        shown = {each.name.removeprefix(f"{module.__name__}.") for each in found}
        assert set(PUBLIC[module]) <= shown, module.__name__
