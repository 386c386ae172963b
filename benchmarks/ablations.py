"""What decided the defaults: `python -m benchmarks.ablations [--clients N] [--only NAME]`.

One setting is changed at a time. For each variant every client measures all atoms, the prior is that of the other
clients, and the models are cut in one shot with the fleet's prior at budgets 0.5 and 0.3. Shown are the accuracy on the
clients' own test images and the entropy increase there, which tells variants apart where accuracy no longer does.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.intervals import mean_interval
from benchmarks.personalization.client import Client, load_client
from benchmarks.personalization.rows import fleet_prior
from personalization.allocation.allocate import allocate, fit_curves, weight_costs
from personalization.cutting.masked import MaskedModel
from personalization.recovery import recover
from personalization.sensing.measurement import entropy_increase
from personalization.sensing.private_trace import compensation
from personalization.sensing.probes import draw_probes, one_at_a_time, probe_levels, take_samples
from personalization.settings import PersonalizationSettings
from personalization.transformer.readout import outputs_of

BUDGETS = (0.5, 0.3)


@dataclass(frozen=True)
class Variant:
    """A change of settings. compensation: of how layers are cut. probes: none for every atom by itself."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    compensation: dict[str, float] = field(default_factory=dict)
    probes: int | None = None


VARIANTS = (
    Variant("defaults"),
    Variant("ridge 0.01", {"ridge": 0.01}),
    Variant("ridge 1", {"ridge": 1.0}),
    Variant("score variance", {"score": "variance"}),
    Variant("selection ridge 0.01", compensation={"selection_ridge": 0.01}),
    Variant("selection ridge 1", compensation={"selection_ridge": 1.0}),
    Variant("carried 0", compensation={"carried": 0.0}),
    Variant("carried 1", compensation={"carried": 1.0}),
    Variant("levels 0.6 0.9", {"levels": (0.6, 0.9)}),
    Variant("level 0.75 alone", {"levels": (0.75,)}),
    Variant("limits 1.0", {"layer_limit": 1.0}),
    Variant("limits 0.9", {"layer_limit": 0.9}),
    Variant("24 probes of 3 layers, lasso", {"solver": "lasso", "layers_per_probe": 3}, probes=24),
    Variant("24 probes of 3 layers, omp", {"solver": "omp", "layers_per_probe": 3}, probes=24),
)


def _masked(client: Client, variant: Variant, settings: PersonalizationSettings, *, everything: bool) -> MaskedModel:
    fit = torch.ones_like(client.fit) if everything else client.fit
    changes: dict[str, Any] = dict(variant.compensation)
    return MaskedModel(client.trace, replace(compensation(settings, fit), **changes))


def _sense(client: Client, variant: Variant, settings: PersonalizationSettings) -> NDArray[np.float64]:
    """Return the sensitivity that a client finds for each atom, [atoms], nats."""
    layers, levels = len(client.world.layers), len(settings.levels)
    design = one_at_a_time(layers, levels)
    if variant.probes is not None:
        design = draw_probes(
            layers,
            levels,
            variant.probes,
            layers_per_probe=settings.layers_per_probe,
            prior=None,
            seen=np.zeros(layers * levels),
            rng=np.random.default_rng(settings.seed),
        )
    masked = _masked(client, variant, settings, everything=False)
    samples = take_samples(masked, design, settings.levels, measure=client.increase)
    if variant.probes is None:
        return samples.measurements
    return recover(samples.design, samples.measurements, solver=settings.solver, seed=settings.seed).sensitivity


def evaluate(clients: Sequence[Client], variant: Variant) -> dict[float, tuple[list[float], list[float]]]:
    """Return for each budget the accuracies and the entropy increases (nats) of all clients."""
    layers = clients[0].world.layers
    settings = [replace(client.settings, **variant.settings) for client in clients]
    sensed = [_sense(client, variant, chosen) for client, chosen in zip(clients, settings, strict=True)]
    figures: dict[float, tuple[list[float], list[float]]] = {budget: ([], []) for budget in BUDGETS}
    for number, (client, chosen) in enumerate(zip(clients, settings, strict=True)):
        others = [s for i, s in enumerate(sensed) if i != number]
        prior = fleet_prior(others, np.ones((len(others), len(sensed[0]))))
        curves = fit_curves(prior.sensitivity, probe_levels(layers, chosen.levels))
        limits = np.full(len(layers), chosen.layer_limit)
        with torch.inference_mode():
            dense = outputs_of(client.dense(), {"pixel_values": client.test})
        for budget in BUDGETS:
            counts = allocate(layers, curves, weight_costs(layers), budget, limits=limits)
            masked = _masked(client, variant, chosen, everything=True)
            model = client.cut(masked.run(dict(enumerate(map(int, counts)))))
            with torch.inference_mode():
                logits = outputs_of(model, {"pixel_values": client.test})
            figures[budget][0].append(float((logits.argmax(-1).numpy() == client.test_labels).mean()))
            figures[budget][1].append(float(entropy_increase(dense, logits).mean()))
    return figures


def main() -> None:
    """Print a Markdown table, a row for each variant as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=12, help="clients of the fleet (default: 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="run the variants whose name contains this")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    clients = [load_client(arguments.seed, number, arguments.clients) for number in range(arguments.clients)]
    console.print("| variant | " + " | ".join(f"accuracy at {b}, % | nats at {b}" for b in BUDGETS) + " |")
    console.print("|---|" + "---|" * (2 * len(BUDGETS)))
    for variant in VARIANTS:
        if arguments.only and arguments.only not in variant.name:
            continue
        cells = []
        for accuracies, increases in evaluate(clients, variant).values():
            mean, half = mean_interval(accuracies)
            cells += [f"{100 * mean:.2f} ± {100 * half:.2f}", f"{np.mean(increases):.4f}"]
        console.print(f"| {variant.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
