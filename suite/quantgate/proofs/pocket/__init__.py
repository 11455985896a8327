"""The pocket models: four Llamas of 90 thousand to 3 million parameters and a Qwen3, made here: `python -m
quantgate.proofs.pocket`."""
