"""See, steer and script language models from the shell."""
