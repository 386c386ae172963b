"""What a comparison's page says above its figures of quality: how to read them."""

from simulations.report.comparison.quality import ComparedQuality


def quality_text(quality: ComparedQuality) -> str:
    """Return how to read the figure of each method's quality."""
    if quality.ratios:
        return (
            "Personal to dense perplexity on the clients' own later text, geometric mean over the clients, with its "
            "95 % interval: 1 has lost nothing, less is better. The upright stroke is the tenth of the clients that "
            "lost most."
        )
    return (
        "Mean over the clients on their own test images, with its 95 % interval. The upright stroke is the worst "
        "tenth of the clients, the grey cross the dense model of the same clients with its head fitted to each."
    )


def difference_text(quality: ComparedQuality, first: str) -> str:
    """Return how to read the figure of paired differences from the method called `first`."""
    alike = "one" if quality.ratios else "zero"
    return (
        f"Paired: the same client under the same seed, against {first}. Where the bar crosses {alike}, the two cannot "
        "be told apart."
    )


def swept_text(quality: ComparedQuality, without: str) -> str:
    """Return how to read the heat map of a sweep whose value `without` is held against the others."""
    if quality.ratios:
        return (
            f"Perplexity divided by that at {without}, whose column is the perplexity ratio: below 1 (blue) is "
            "better, above (orange) worse."
        )
    return f"Points of accuracy gained (blue) or lost (orange) against {without}, whose column is the accuracy."


def target_text(quality: ComparedQuality, target_loss: float) -> str:
    """Return how to read the figure of rounds to the target. target_loss: a share of accuracy or of perplexity."""
    percent = f"{100 * target_loss:g}"
    if quality.ratios:
        reach = f"perplexity is, on average, at most {percent} % above that of the dense model"
        clients = "the sampled clients'"
    else:
        reach = f"come within {percent} point{'' if percent == '1' else 's'} of their dense model with its head fitted"
        clients = "the sampled clients"
    return (
        f"The first round in which {clients} {reach}; the mean is over the runs that do. A share beside a mark says "
        "how many do, where not all."
    )
