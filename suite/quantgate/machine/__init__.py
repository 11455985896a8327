"""What can change a measured number although nobody has changed the model.

    environment  versions of libraries, this engine's code and commit, the processor: what each measurement records
    builds       which build of a library is installed, and whether one of its files was edited
    variables    environment variables that change numbers, timings or memory
    code         the text of Python code that counts: without comments and docstrings
    quota        the processor quota of a container

`environment.describe()` puts all of these into one table; `environment.work_facts()` is the part of it that decides
whether a stored measurement may be reused.
"""
