"""Baselines: measurements that a person accepted, kept in git.

store      find and read the baseline of a cell
update     plan what accepting a measurement would change, and write it; table: show it
file       one summary (TOML) and the raw file (JSON) that it names; seal: whether they still go together
machines   the machines that a user named, whose absolute timings are kept
toml_file  read and write TOML records, by one run at a time
"""
