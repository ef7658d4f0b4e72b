"""``graft architecture``: what a run asks of an architecture, checked before anything trains."""

import io
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer import Argument

from graft.cli.shared import (
    ConfigOption,
    DataOption,
    Format,
    FormatOption,
    SettingOption,
    print_facts,
    read_configuration,
)

architecture_app = typer.Typer(no_args_is_help=True)


@architecture_app.callback()
def architecture() -> None:
    """Check architectures, also one's own."""


@architecture_app.command(epilog="Example: graft architecture check cnn-small --data my-folder")
def check(
    name: Annotated[str, Argument(help="A name, or the reference package.module:attribute.")],
    data: DataOption = None,
    config_file: ConfigOption = None,
    setting: SettingOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check an architecture for a task: shapes, dtypes, seed, round trip, export, memory.

    Exit code 1 where a run could not use it; each line names what was found.
    """
    # Torch takes seconds to import; --help and a mistyped option need none of it.
    from graft.core.plugins import is_reference, load_references
    from graft.data.worlds import open_world

    config = read_configuration(config_file, setting, data=data)
    if is_reference(name):
        load_references((name,))
    facts = check_architecture(name, open_world(config.world, config.seed).task, config)
    print_facts(facts, output)
    if any(str(each).startswith("FAILS") for each in facts.values()):
        raise typer.Exit(1)


class _WrongError(Exception):
    """What a run asks does not hold."""


def require(condition: bool, otherwise: str) -> None:
    """Raises an error with the text unless the condition holds."""
    if not condition:
        raise _WrongError(otherwise)


def check_architecture(name: str, task: Any, config: Any) -> dict[str, Any]:
    """A line for each thing that a run asks; one that begins with "FAILS" says what is wrong."""
    import torch

    from graft.core.payload import encode_payload
    from graft.devices import device_classes
    from graft.devices.classes import TRAINING_SHARE
    from graft.models import build_network, network_cost, network_from, parameters_of
    from graft.models.building import example_rows
    from graft.models.registry import offered_architectures
    from graft.wire.payload.parts import join_parts, split_payload

    offered_architectures(task, (name,))  # an unknown name is one error, and no list of them

    def shapes() -> str:
        network = build_network(name, task, seed=0).eval()
        for batch in (1, 2, 7):
            features = network.features(example_rows(name, task, batch))
            wanted = (batch, network.num_features)
            assert tuple(features.shape) == wanted, f"features: got {tuple(features.shape)}"
            logits = network(example_rows(name, task, batch))
            assert tuple(logits.shape) == (batch, task.num_classes), (
                f"logits: got {tuple(logits.shape)}"
            )
        return f"{network.num_features} features, {task.num_classes} classes of any batch"

    def dtypes() -> str:
        found = {
            str(t.dtype).removeprefix("torch.")
            for t in build_network(name, task, 0).state_dict().values()
        }
        require(
            bool(found & {"float32", "float16", "bfloat16"}), f"got {sorted(found)}, wanted floats"
        )
        require(not found & {"complex64", "complex128", "float64"}, f"got {sorted(found)}")
        return ", ".join(sorted(found))

    def seed() -> str:
        before = torch.get_rng_state()
        first, again, other = (parameters_of(build_network(name, task, s)) for s in (1, 1, 2))
        assert torch.equal(before, torch.get_rng_state()), "it draws from torch's generator"
        assert all((first[key] == again[key]).all() for key in first), (
            "equal seeds give other parameters"
        )
        require(any((first[key] != other[key]).any() for key in first), "every seed gives the same")
        return "equal seeds give equal parameters, others give others"

    def gradient() -> str:
        network = build_network(name, task, seed=0).train()
        network(example_rows(name, task, 4)).square().sum().backward()
        trained = [key for key, p in network.named_parameters() if p.requires_grad]
        without = [
            key for key, p in network.named_parameters() if p.requires_grad and p.grad is None
        ]
        require(bool(trained), "it has no parameter that is trained")
        require(not without, f"no gradient reaches {', '.join(without[:1])}")
        return f"reaches all {len(trained)} trained tensors"

    def round_trip() -> str:
        network = build_network(name, task, seed=0).eval()
        parameters = parameters_of(network)
        payload = encode_payload(name, parameters)
        require(
            join_parts(*split_payload(payload)) == payload, "base and residual give other bytes"
        )
        rows = example_rows(name, task, 3)
        copy = network_from(name, task, parameters)
        assert torch.equal(copy(rows), network(rows)), "a copy of its tensors answers otherwise"
        base, residual = map(len, split_payload(payload))
        return f"{len(payload)} bytes, as int8 base {base} and residual {residual}"

    def export() -> str:
        if len(task.inputs) > 1:
            return "not checked: the task has several streams"
        buffer = io.BytesIO()
        network = build_network(name, task, seed=0).eval()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(network, (example_rows(name, task, 2),), buffer, dynamo=False)  # type: ignore[arg-type]
        except ModuleNotFoundError as error:
            return f"not checked: {error.name} is not installed (graft-fl[export])"
        return f"ONNX of {len(buffer.getvalue())} bytes"

    def memory() -> str:
        cost = network_cost(name, task)
        fits = [
            each.name
            for each in device_classes(config.devices.classes_file).values()
            if cost.training_memory_bytes <= each.memory_bytes * TRAINING_SHARE
        ]
        assert fits, f"no class has the {cost.training_memory_bytes} bytes of training"
        return (
            f"{cost.num_parameters} parameters, {cost.training_memory_bytes} bytes in training; "
            f"fits {', '.join(fits)}"
        )

    checks: dict[str, Callable[[], str]] = {
        "shapes": shapes, "dtypes": dtypes, "seed": seed, "gradient": gradient,
        "round trip": round_trip, "export": export, "memory": memory,
    }  # fmt: skip
    facts: dict[str, Any] = {"architecture": name, "task": f"{task.name} {task.sample_shape or ''}"}
    with torch.random.fork_rng(devices=[]):
        for what, run in checks.items():
            try:
                facts[what] = run()
            except Exception as error:  # an own module may raise anything
                reason = " ".join(str(error).split())[:300]
                kind = "" if isinstance(error, _WrongError) else f"{type(error).__name__}: "
                facts[what] = f"FAILS: {kind}{reason}"
    return facts
