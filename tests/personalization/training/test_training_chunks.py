import pytest
import torch

import personalization.training.loop as training
from personalization.training.loop import mean_in_chunks


@pytest.mark.parametrize("rows_at_a_time", [1, 3, 100])
def test_chunks_give_the_mean_loss_and_its_gradient(rows_at_a_time, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    head = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    truth = torch.randint(5, (7,), generator=generator)
    monkeypatch.setattr(training, "_CHUNK_LOGITS", 5 * rows_at_a_time)

    def chunk(rows, wanted):
        return torch.nn.functional.cross_entropy(rows @ head.t(), wanted, reduction="none")

    own, whole = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    found, expected = 3.0 * mean_in_chunks(5, chunk, own, truth), 3.0 * chunk(whole, truth).mean()
    found.backward()
    expected.backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(own.grad, whole.grad)
