"""Baselines: measurements that a person accepted, kept in git.

store      find and read the baselines of cells, and the machines that a user named
update     plan what accepting a measurement would change, and write it; table: show it
baseline   the record: an accepted measurement, with the origin of each value
file       one summary (TOML) and the raw file (JSON) that it names
toml_file  read and write TOML records, by one run at a time
"""
