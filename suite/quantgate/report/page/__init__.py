"""Pages: single HTML files that load nothing else, written from templates with their data inside.

    template.py    the templates of this folder, styles and scripts in one piece
    figures.py     findings, gates and their intervals as a template shows them
    frontier.py    size, loss and speed of cells: which of them no other cell beats
    chart.py       scales, ticks and places of labels of a chart

`jinja2` is imported when a page is written, because `pytest --collect-only` imports the room and has to stay fast.
"""
