"""How Sphinx builds these documents: ``make docs``."""

import os
import tempfile

from airflow_provider_lookoutvision import __version__

# Autodoc imports Airflow, which makes itself a home.
_home = tempfile.TemporaryDirectory()
os.environ["AIRFLOW_HOME"] = _home.name

project = "airflow-provider-lookoutvision"
author = "the authors of airflow-provider-lookoutvision"
project_copyright = "Apache License 2.0"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"{project} {release}"
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
nitpicky = False
# Names that only a type checker imports.
suppress_warnings = ["sphinx_autodoc_typehints.forward_reference"]
