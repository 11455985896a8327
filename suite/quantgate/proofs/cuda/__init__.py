"""Whether the suite measures rightly on a CUDA device: a check that is prepared for the day there is one."""
