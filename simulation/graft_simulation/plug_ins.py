"""What Ray workers need of the process that starts them: its methods and its plug-ins' names."""

from dataclasses import dataclass
from functools import cache

from graft.core.config import ExpansionConfig
from graft.core.plugins import load_references
from graft.methods import Method, add_method, added_methods


@dataclass(frozen=True, slots=True)
class PlugIns:
    """References for a worker to import, and the pickled Method objects of a script.

    What a script or notebook defines is pickled by value; what it imports, by reference.
    """

    references: tuple[str, ...]
    methods: bytes

    def install(self) -> None:
        """Make them known in this process; raises ConfigError for what cannot be imported."""
        _install(self)


def pack_plug_ins(config: ExpansionConfig) -> PlugIns:
    """The plug-ins of a run that ``config`` names, from this process."""
    from ray import cloudpickle  # seconds; a run without workers does without

    named = [method for method in added_methods() if method.name in config.methods]
    return PlugIns(config.plug_ins, cloudpickle.dumps(named))  # type: ignore[no-untyped-call]


@cache
def _install(plug_ins: PlugIns) -> None:
    from ray import cloudpickle

    load_references(plug_ins.references)
    methods: list[Method] = cloudpickle.loads(plug_ins.methods)
    for method in methods:
        add_method(method)
