"""Resolution selection: how coarsely each picture is shown in stage 1."""
