"""How long the tests wait for a process before they take it to hang: no test is about less."""

PATIENCE = 900  # seconds; on a busy machine a command takes many times what it takes on a quiet one
