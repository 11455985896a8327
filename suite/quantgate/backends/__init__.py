"""The backends, one file each: what a scheme may say and what the backend can do (`quantgate.backends.spec`)."""
