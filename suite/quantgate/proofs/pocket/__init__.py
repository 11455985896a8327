"""The pocket family: four Llama models of 90 thousand to 3 million parameters, made here: `python -m
quantgate.proofs.pocket`."""
