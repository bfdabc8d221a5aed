# The programs: op-dbus and the executables of the plugins. Nothing else is in this package, so that what
# stands around them (units, policies, model) can change without compiling RocksDB again.
{
  lib,
  rustPlatform,
  pkg-config,
  btrfs-progs,
  hwloc,
  numactl,
  udev,
}:
rustPlatform.buildRustPackage {
  pname = "operation-dbus-program";
  version = (lib.importTOML ../Cargo.toml).workspace.package.version;

  # What cargo reads, and no more: a changed text of documentation compiles nothing again.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../.cargo
      ../rustfmt.toml
      ../formats
      ../engine
      ../daemon
      ../cli
      ../tests
      ../benches
    ];
  };
  # Every dependency comes from the registry with a checksum, which stands there: no other hash is needed.
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [
    pkg-config
    # RocksDB's binding reads its headers with libclang.
    rustPlatform.bindgenHook
  ];
  buildInputs = [
    btrfs-progs # libbtrfsutil
    hwloc
    numactl # libnuma
    udev # which hwloc is linked with
  ];

  cargoBuildFlags = [
    "--package=op-dbus"
    "--package=op-dbus-plugins"
  ];
  # They have a derivation of their own, checks.tests: most need a bus, a model or a disk.
  doCheck = false;

  meta = {
    description = "Vector-and-state storage engine, its D-Bus service and its command line";
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    mainProgram = "op-dbus";
  };
}
