"""``compress --web``: one HTML page with policies as WebAssembly, and live episodes of the classic control environments."""

from sb3_sparse.export.web.page import ENVIRONMENTS, Entry, check_environment, check_web, make_page

__all__ = ["ENVIRONMENTS", "Entry", "check_environment", "check_web", "make_page"]
