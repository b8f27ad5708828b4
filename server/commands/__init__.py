"""The coordinator's commands, one module each; `server.cli` names them."""
