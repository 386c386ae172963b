"""What measurements come to, written out."""

from torch.nn import functional


def loss_increase(dense, masked, labels):
    """The rise of the cross-entropy in nats for logits [..., classes] and labels [...]."""
    before, after = (
        functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").reshape(labels.shape)
        for logits in (dense, masked)
    )
    return after - before
