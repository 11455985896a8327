"""From collected cases to measurements: plan, one process per cell, the process itself."""
