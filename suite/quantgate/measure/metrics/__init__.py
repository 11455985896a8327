"""The metric groups of the engine, one file each (`quantgate.measure.groups`)."""
