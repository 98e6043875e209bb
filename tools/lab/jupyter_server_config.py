"""JupyterLab as a class needs it. `make lab` has Jupyter read this folder, in that of the clone."""

import os
from pathlib import Path

import zmq

c = get_config()  # noqa: F821  # Jupyter's

c.ServerApp.ip = "127.0.0.1"
c.ServerApp.allow_root = True  # as one is in a container
c.ServerApp.root_dir = "."  # so that links from the lessons to results/ and to the library work
c.FileContentsManager.preferred_dir = "lessons"
c.ContentsManager.hide_globs = ["__pycache__", "*.pyc", "*.part", "notebooks"]  # not the copies
first = min((path.name for path in Path("lessons").glob("*.ipynb")), default="")
c.LabApp.default_url = f"/lab/tree/lessons/{first}"

# What would else be in the home, which other courses share.
c.LabApp.workspaces_dir = "lessons/.jupyter/workspaces"
c.NotebookNotary.data_dir = "lessons/.jupyter"  # see d2lres/course/copies.py

# One kernel, and nobody else on this machine can listen to it.
c.KernelSpecManager.allowed_kernelspecs = {"python3"}
c.KernelManager.transport_encryption = "auto" if zmq.has("curve") else "disabled"

# Not a login shell, which would forget the PATH of `make lab`.
c.ServerApp.terminado_settings = {"shell_command": [os.environ.get("SHELL") or "bash"]}

# The terminal says where JupyterLab is, and what went wrong.
c.Application.log_level = "WARN"
c.ServerApp.tornado_settings = {"ws_ping_interval": 0}  # of the defaults, tornado complains
c.LanguageServerManager.autodetect = False  # of programs that are not here
