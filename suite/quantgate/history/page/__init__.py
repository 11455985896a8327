"""The page of a history: events first, then every cell by family of metrics as small lines, and each line as a chart.

view.py     what the page says: events, rows of the grid, the newest run's chart of size, loss and speed
data.py     the series in few bytes, one piece for each cell, which the browser unpacks when it is looked at
write.py    both in one file that loads nothing
"""
