"""What measuring needs and is made once: checkpoints in every scheme, tokenized texts and tasks."""
