"""One job, one process: a file goes in, an exit status comes out, and progress arrives on the way (README.md)."""
