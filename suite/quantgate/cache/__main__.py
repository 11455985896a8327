"""`python -m quantgate.cache`: list what the cache holds, and remove what is no longer needed."""

import sys

from quantgate.cache.prune import main

if __name__ == "__main__":
    sys.exit(main())
