"""Compiles the templates of the report's page, for all processes that are forked from one that imports this."""

from quantgate.report.page.template import FOLDER, templates

for name in templates(FOLDER).list_templates(["j2"]):
    templates(FOLDER).get_template(name)
