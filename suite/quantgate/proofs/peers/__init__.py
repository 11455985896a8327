"""The suite held against the field's own tools, on this machine, in this run: `python -m quantgate.proofs.peers`.

lm-evaluation-harness's model class for log-likelihoods and scoring speed; llama.cpp's `llama-perplexity` and
`llama-bench` for perplexity, divergence and tokens/s. What is compared, and how far the suite may be from it, stands in
fixtures/peers.toml.

    catalogue.py   the rows: what each measures on both sides
    bed.py         what rows share: the suite's processes, lm-eval's, the tools, what was measured already
    harness.py     lm-eval's model class, in a process of its own
    build.py       the tools, compiled from the source of the installed llama-cpp-python against its libraries
    tools.py       their command lines; parse.py: what they print
    outcome.py     what a row says: values of both sides, difference, bound; table.py: how it is shown
"""
