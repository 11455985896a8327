"""Many machines: the cells of a run as tasks of a Ray cluster. Imported with `--executor ray` alone."""
