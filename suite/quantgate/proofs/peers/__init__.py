"""Compare the suite with the field's own tools on this machine: `python -m quantgate.proofs.peers`.

lm-evaluation-harness's model class is the peer for log-likelihoods and scoring speed; llama.cpp's `llama-perplexity`
and `llama-bench` are for perplexity, divergence and tokens/s. fixtures/peers.toml has the bounds.

    catalogue.py   the rows: what each measures on both sides
    answers.py     the rows on written answers
    bed.py         what rows share: the suite's processes, lm-eval's, the tools, earlier results
    harness.py     lm-eval's model class, in its own process
    build.py       which tools there are, and what they are compiled from
    tools.py       command lines of the tools; parse.py: reads their output
    outcome.py     checks, rows and the layout of the table
"""
