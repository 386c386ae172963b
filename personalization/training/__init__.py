"""Training of a whole or a cut model on private samples: distillation, tuning, low-rank adapters."""
