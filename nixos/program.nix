# The programs: op-dbus and the executables of the plugins. Nothing else is in this package, nor in what it is
# made of, so that what stands around them (units, policies, model) can change without compiling RocksDB again.
{
  lib,
  rustPlatform,
  pkg-config,
  btrfs-progs,
  hwloc,
  numactl,
  udev,
}:
let
  # What cargo reads, and no more: a changed text of documentation compiles nothing again.
  files = [
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
  # What of that only tests and other packages read.
  aroundPrograms = [
    ../daemon/system
    ../engine/model
  ];
in
rustPlatform.buildRustPackage {
  pname = "operation-dbus-program";
  version = (lib.importTOML ../Cargo.toml).workspace.package.version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.difference (lib.fileset.unions files) (lib.fileset.unions aroundPrograms);
  };
  # For checks.nix, whose tests read all of them.
  passthru = { inherit files; };

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
