"""Sphinx configuration; `make doc` builds with warnings as errors."""

from importlib import metadata

project = "sb3_sparse"
author = "The sb3_sparse developers"
project_copyright = "2026, The sb3_sparse developers"
release = metadata.version("sb3_sparse")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence"]
html_theme = "sphinx_rtd_theme"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
exclude_patterns = ["_build"]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
myst_heading_anchors = 3
