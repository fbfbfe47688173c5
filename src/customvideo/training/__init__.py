"""The training loop: batches, class prior, steps, checkpoints. It knows no method by name."""
