"""Which upgrade did it: narrow a change between two environments to a package, and to its release or commit."""
