from __future__ import annotations

import logging
import os
from importlib.metadata import version as installed_version

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django.conf.global_settings")
django.setup()

project = "django-baikal"
author = "The django-baikal authors"
copyright = author  # noqa: A001 (Sphinx's name)
release = version = installed_version("django-baikal")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"django-baikal {release}"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

nitpicky = True
# A build opens no socket, so no other project's inventory is read: only our own names are checked.
nitpick_ignore_regex = [(r"py:.*", r"(?!django_baikal)[\s\S]*")]
# index.md names whole directories; one that is still empty is no mistake. (Sphinx gives this
# warning no type, so suppress_warnings does not reach it.)
logging.getLogger("sphinx.sphinx.directives.other").addFilter(
    lambda record: "toctree glob" not in str(record.msg)
)

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
