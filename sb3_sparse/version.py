"""The version of this package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sb3_sparse")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
