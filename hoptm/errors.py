"""The errors a reader can mend.

Each says what was wrong, where, and what to do. The commands print them without a traceback and exit
with status 2; everything else that is raised is a defect of ours and keeps its traceback.
"""


class HoptmError(Exception):
    """Something outside the code is wrong: an input, a setting, a file, the machine."""


class DataError(HoptmError):
    """A data set is missing, damaged or not of the kind that was asked for."""


class ConfigError(HoptmError):
    """A setting is out of its range, or two settings contradict each other."""


class FileError(HoptmError):
    """A file of ours (experts, synthetic set, record, state) is damaged or of another run."""


class DivergedError(HoptmError):
    """An optimisation left the finite numbers, or a step size became negative."""
