"""The hospital's commands, one module each; `client.cli` names them."""
