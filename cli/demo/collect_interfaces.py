#!/usr/bin/env python3
"""Collects D-Bus interface descriptions for the demonstration.

Why: the demonstration asks in words for D-Bus methods, so it needs real interfaces with the
documentation their authors wrote. They are taken from this machine and from a fixed list of
Debian packages, which are downloaded and read but not installed. Their versions, and what proves
that a package is genuine, come from the distribution's signed package lists.

Usage: collect_interfaces.py OUT_DIR
  OUT_DIR must not exist; it appears when it is complete:
    OUT_DIR/installed/*.xml    from /usr/share/dbus-1/interfaces
    OUT_DIR/PACKAGE/*.xml      from a downloaded package

Without apt only what is installed is collected.
"""

import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree

INSTALLED = pathlib.Path("/usr/share/dbus-1/interfaces")

# Services of a desktop and a server that ship their interfaces as XML, most with documentation.
# (systemd, udisks2, polkit and bluez ship none: theirs exist only on a live bus.)
PACKAGES = (
    "network-manager-dev",
    "xdg-desktop-portal-dev",
    "modemmanager-dev",
    "libvirt-dbus",
    "avahi-daemon",
    "gnome-shell-common",
    "malcontent",
    "geoclue-2.0",
    "colord",
    "upower",
    "libflatpak-dev",
    "packagekit",
    "fprintd",
    "accountsservice",
    "rtkit",
    "fwupd",
    "bolt",
)


def interfaces(content):
    """Returns the names of the interfaces that an introspection file describes, none if it is
    another kind of XML. Interfaces of D-Bus itself, which some files repeat, do not count."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return set()
    if root.tag != "node":
        return set()
    names = {element.get("name", "") for element in root.iter("interface")}
    return {name for name in names if not name.startswith("org.freedesktop.DBus.")}


class Collection:
    """Writes files that describe an interface no earlier file has described."""

    def __init__(self, directory):
        self.directory = directory
        self.seen = set()
        self.file_count = 0

    def add(self, source, files):
        """Adds the files of one source, given as pairs of name and content."""
        for name, content in sorted(files):
            described = interfaces(content)
            if described <= self.seen:
                continue
            self.seen |= described
            self.file_count += 1
            target = self.directory / source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def installed_files():
    return [(path.name, path.read_bytes()) for path in INSTALLED.glob("*.xml") if path.is_file()]


def available(packages):
    """Returns those packages that the package lists know, and says which they do not."""
    command = ["apt-cache", "--generate", "pkgnames"]
    known = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    if missing := [name for name in packages if name not in known]:
        print(f"not in this system's package lists, left out: {' '.join(missing)}")
    return [name for name in packages if name in known]


def download(packages, directory):
    """Downloads packages into a directory without installing them."""
    # As root, apt would download as the user _apt, who may not write here.
    options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    command = ["apt-get", "--quiet", "--quiet", *options, "download", *packages]
    if subprocess.run(command, cwd=directory, check=False).returncode != 0:
        sys.exit("apt-get download failed; with outdated package lists, apt-get update helps")


def packaged_files(package):
    """Returns name and content of the interface files in a .deb, read without unpacking it."""
    command = ["dpkg", "--fsys-tarfile", package]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    folder = INSTALLED.relative_to("/")
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return [
            (path.name, members.extractfile(member).read())
            for member in members
            if member.isfile()
            and (path := pathlib.PurePosixPath(member.name)).parent == folder
            and path.suffix == ".xml"
        ]


def collect(directory):
    """Fills `directory` with everything that can be had here."""
    collection = Collection(directory)
    collection.add("installed", installed_files())
    if shutil.which("apt-get") and shutil.which("dpkg"):
        wanted = available(PACKAGES)
        archives = directory / ".packages"
        archives.mkdir()
        if wanted:
            download(wanted, archives)
        for name in wanted:
            (archive,) = archives.glob(f"{name}_*.deb")
            collection.add(name, packaged_files(archive))
        shutil.rmtree(archives)
    else:
        print("no apt here: only the interfaces of installed services are collected")
    return collection


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[1])
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    collection = collect(partial)
    if not collection.file_count:
        sys.exit("no D-Bus interface description was found")
    partial.rename(target)
    print(f"{collection.file_count} files, {len(collection.seen)} interfaces: {target}")


if __name__ == "__main__":
    main()
