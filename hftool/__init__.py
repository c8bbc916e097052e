"""See, steer and script language models from the shell."""

__version__ = "0.1.0"
