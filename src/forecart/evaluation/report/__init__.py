"""The report of a run as one HTML file that opens without a network.

Takes the parsed `report.json`, gives the page. Every figure on it is one of the input or a count of such
figures; what the input does not have is left out. Markup is escaped by construction (`markup`), charts are
pure functions from data to SVG (`interval_charts`, `line_charts`), sections put them together, `render` makes
the page.
"""

from forecart.evaluation.report.render import render_report

__all__ = ["render_report"]
