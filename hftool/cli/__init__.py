"""The command line: the application, its commands, help, and dialogues at a terminal."""
